"""What folding with an ESMFold of full size costs on a CUDA device.

    python benchmarks/gpu_folding.py [--repeats 3] [--out gpu_folding.json]

Weights are random: times and memory do not depend on them, confidences mean nothing. Each length is folded alone and
in a batch as large as ``score`` makes it, for several chunk sizes (``none``: the pair representation in one piece), by
the code that ``score`` runs: stem in half precision, everything else in single. The last line says how time grows with
length, which is what the estimate of ``fold=auto`` assumes. ``--quick`` folds with a tiny network on any machine and
shows that the script works. ``short`` is the part ``folding`` of ``gpu_measure.py``: one run of each case, by the
chunk size that ``score`` takes.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from gpu_table import Table
from measure import seconds
from rich import table as tables
from rich.box import SIMPLE
from rich.console import Console
from transformers import EsmConfig, EsmForProteinFolding

from didi_core.device import out_of_memory
from didi_protein.scoring.choice import GROWTH
from didi_protein.scoring.esmfold import ORDER, EsmFold
from didi_protein.scoring.folding import batches, free_memory
from didi_protein.scoring.settings import ProteinScoring

# The language model of facebook/esmfold_v1 (ESM-2 of 3B); trunk and structure module have transformers' defaults.
STEM: dict[str, Any] = {
    "hidden_size": 2560, "num_hidden_layers": 36, "num_attention_heads": 40, "intermediate_size": 10240,
}  # fmt: skip
SHORT = 45.0  # seconds after which the part of gpu_measure.py begins no other case
TINY_STEM = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TINY_TRUNK = {
    "num_blocks": 1, "sequence_state_dim": 32, "pairwise_state_dim": 16, "sequence_head_width": 8,
    "pairwise_head_width": 8, "position_bins": 8, "max_recycles": 1,
    "structure_module": {
        "sequence_dim": 32, "pairwise_dim": 16, "ipa_dim": 4, "resnet_dim": 8, "num_heads_ipa": 2, "num_qk_points": 2,
        "num_v_points": 2, "num_blocks": 1,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """Configuration of the network, residues, chunk sizes, residues of a batch, runs that are counted."""

    config: EsmConfig
    lengths: tuple[int, ...]
    chunks: tuple[int | None, ...]
    tokens: int
    repeats: int


@dataclass(frozen=True)
class Row:
    """One measurement; None where memory did not suffice. ``seconds`` are of one sequence; ``chunk`` None: whole."""

    residues: int
    sequences: int
    chunk: int | None
    seconds: float | None = None
    peak_gigabytes: float | None = None
    problem: str = ""


def configuration(quick: bool) -> EsmConfig:
    """Of facebook/esmfold_v1, or of a network that folds in milliseconds."""
    folding = {"lddt_head_hid_dim": 16, "trunk": TINY_TRUNK, "fp16_esm": True} if quick else {"fp16_esm": True}
    return EsmConfig(
        vocab_size=33, mask_token_id=32, pad_token_id=1, position_embedding_type="rotary", token_dropout=True,
        layer_norm_eps=1e-5, emb_layer_norm_before=False, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        is_folding_model=True, esmfold_config=folding, **(TINY_STEM if quick else STEM),
    )  # fmt: skip


def network(config: EsmConfig, device: torch.device) -> EsmFold:
    """Random weights, made on the device, since they are billions."""
    torch.manual_seed(0)
    with device:
        model = EsmForProteinFolding(config)
    return EsmFold(model, device)


def proteins(count: int, length: int) -> list[str]:
    """Random sequences."""
    drawn = torch.randint(len(ORDER), (count, length), generator=torch.Generator().manual_seed(length))
    return ["".join(ORDER[i] for i in row) for row in drawn.tolist()]


def measured(folder: EsmFold, row: Row, repeats: int, warm: int = 1) -> Row:
    """The row with the median time after runs that warm up, and the peak memory, weights included."""
    on_gpu = folder.device.type == "cuda"
    sequences = proteins(row.sequences, row.residues)
    folder.model.trunk.set_chunk_size(row.chunk)
    try:
        for _ in range(warm):
            folder.fold(sequences)
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(folder.device)
        times = [seconds(lambda: folder.fold(sequences)) for _ in range(repeats)]  # ends with copies to the CPU
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return replace(row, problem="out of memory")
    finally:
        free_memory()
    peak = torch.cuda.max_memory_allocated(folder.device) / 1e9 if on_gpu else None
    return replace(row, seconds=statistics.median(times) / row.sequences, peak_gigabytes=peak)


def cases(setting: Setting) -> list[Row]:
    """What is measured: each length alone and in the largest batch of ``setting.tokens``, for each chunk size."""
    found = []
    for length in setting.lengths:
        largest = len(next(batches([length] * setting.tokens, setting.tokens)))
        found += [Row(length, n, chunk) for n in dict.fromkeys((1, largest)) for chunk in setting.chunks]
    return found


def growth(rows: Sequence[Row], chunk: int) -> float | None:
    """The power of length that the time of one sequence goes with, from the longest two."""
    alone = [row for row in rows if row.sequences == 1 and row.chunk == chunk and row.seconds]
    if len(alone) < 2:
        return None
    short, long = alone[-2:]
    return math.log((long.seconds or 0) / (short.seconds or 1)) / math.log(long.residues / short.residues)


def shown(rows: Sequence[Row], title: str) -> tables.Table:
    """One row a measurement."""
    made = tables.Table(title=title, box=SIMPLE, pad_edge=False)
    for header in ("residues", "sequences", "chunk", "s per sequence", "peak GB", ""):
        made.add_column(header, justify="right" if header else "left")
    for row in rows:
        numbers = ("-" if value is None else f"{value:.3g}" for value in (row.seconds, row.peak_gigabytes))
        made.add_row(str(row.residues), str(row.sequences), str(row.chunk or "none"), *numbers, row.problem)
    return made


def short(table: Table) -> None:
    """Each length alone, then in batches, then in one piece, one run each, until ``SHORT`` seconds are over."""
    started, usual = time.monotonic(), ProteinScoring()
    folder = network(configuration(table.quick), table.device)
    if table.cuda:
        torch.cuda.synchronize()
    label = f"ESMFold, {sum(p.numel() for p in folder.model.parameters()) / 1e9:.2g} billion weights"
    table.add(f"{label}: made on the device", time.monotonic() - started, "s")
    lengths, tokens, chunk = ((6, 12), 24, 8) if table.quick else ((100, 200, 400), usual.tokens, usual.chunk)
    folder.fold(proteins(1, lengths[0]))  # the first call loads kernels
    whole = [Row(length, 1, None) for length in lengths]
    found: list[Row] = []
    for row in [*sorted(cases(Setting(folder.model.config, lengths, (chunk,), tokens, 1)), key=_batched), *whole]:
        if time.monotonic() - started > SHORT:
            table.add("left out, no time", f"{row.residues} residues, {row.sequences} sequences, chunk {row.chunk}")
            continue
        table.attempt(f"{label}: {row}", partial(_fold, table, folder, row, found))
    power = growth(found, chunk)
    if power is not None:
        table.add("time of a sequence goes with length to the power", power, "", f"{GROWTH} assumed by fold=auto")


def _batched(row: Row) -> tuple[bool, int]:
    return row.sequences > 1, row.residues


def _fold(table: Table, folder: EsmFold, row: Row, found: list[Row]) -> None:
    one = measured(folder, row, 1, warm=0)
    found.append(one)
    what = f"{row.sequences} x {row.residues} residues, chunk {row.chunk or 'none'}"
    table.add(what, one.problem if one.seconds is None else one.seconds, "s a sequence")
    if one.peak_gigabytes is not None:
        table.add(f"{what}: peak", one.peak_gigabytes, "GB")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=int, default=3, help="runs that are counted")
    parser.add_argument("--quick", action="store_true", help="a tiny network on the CPU: shows that it runs")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    given = parser.parse_args(arguments)
    if given.repeats < 1:
        parser.error(f"--repeats {given.repeats}: at least one run is needed.")
    device = torch.device("cpu" if given.quick else given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here: run this on a machine with one, or show that it runs with --quick.")
        return 2
    config, usual = configuration(given.quick), ProteinScoring()
    setting = (
        Setting(config, (6, 12), (None, 8, 4), 24, 1)
        if given.quick
        else Setting(config, (100, 200, 400), (None, usual.chunk, 64), usual.tokens, given.repeats)
    )
    folder = network(config, device)
    rows = [measured(folder, row, setting.repeats) for row in cases(setting)]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    size = sum(parameter.numel() for parameter in folder.model.parameters())
    Console().print(shown(rows, f"ESMFold, {size / 1e9:.2g} billion weights, {folder.passes} passes, {name}"))
    power = None if given.quick else growth(rows, usual.chunk)
    if power is not None:
        print(f"time goes with length to the power {power:.2f}; the estimate of fold=auto takes {GROWTH}")
    if given.out:
        record = {
            "device": name, "torch": torch.__version__, "transformers": transformers.__version__, "weights": size,
            "passes": folder.passes, "quick": given.quick, "growth": power, "rows": [asdict(row) for row in rows],
        }  # fmt: skip
        given.out.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
