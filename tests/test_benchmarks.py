"""The benchmarks run; their figures are for a quiet machine and are not tested."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

CORE = Path(__file__).parent.parent / "benchmarks" / "core.py"


def test_quick_benchmarks_measure_every_comparison() -> None:
    spec = importlib.util.spec_from_file_location("benchmark_core", CORE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    rows = module.measure(quick=True)
    assert len(rows) == 6 and all(row.median > 0 for row in rows)
    memory = next(row for row in rows if "bytes kept" in row.name)
    assert memory.median > 10  # chunks are recomputed: nothing of size [N, V] is kept
