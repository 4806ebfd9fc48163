"""Quality of a teacher by number of calls under a new judge, and what training needs beforehand.

    python benchmarks/gpu_curves.py --domain protein --teacher DIR --judge DIR --out FILE [--num 256] [--device auto]
    python benchmarks/gpu_curves.py --prepare FILE      # in the folder with the data

The first writes, for the plain law and grid and for the domain's best, perplexity and entropy with intervals at 1 to
256 calls, in the form of a card's ``steps_matter``; the file is rewritten after every row. The second packs the text
(once, for all processes) and finds an attention backend that trains here.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from bundle import BEST, PLAIN

from didi_core.checkpoints.card import load_denoiser
from didi_core.checkpoints.judge import load_judge
from didi_core.evaluation.step_curve import step_curve
from didi_core.metrics.judge import JudgePerplexity
from didi_core.models.attention import available_backends
from didi_core.models.dit import DiT, DiTConfig
from didi_core.storage.files import write_json
from didi_core.types import Vocabulary
from didi_language.domain import LanguageDomain
from didi_language.settings import LanguageSettings
from didi_protein.domain import ProteinDomain

STEPS = (256, 128, 64, 32, 16, 8, 4, 2, 1)


def judged(domain: str, judge: Path, device: torch.device) -> tuple[Any, list[Any]]:
    """The domain, and its perplexity and entropy under that judge."""
    if domain == "protein":
        network = load_judge(judge).to(device)
        protein = ProteinDomain()
        protein.judge = JudgePerplexity(network, protein.encode)
        return protein, protein.metrics()[:2]
    language = LanguageDomain(LanguageSettings(judge=str(judge)))
    found = language.metrics()[:2]
    found[0].judge.to(device)  # type: ignore[attr-defined]
    return language, found


@torch.no_grad()
def curves(
    domain_name: str, teacher: Path, judge: Path, out: Path, steps: Sequence[int], num: int, device: str
) -> None:
    """Write the curves, a row at a time, the plain ones first at every number of calls."""
    place = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    domain, metrics = judged(domain_name, judge, place)
    network = load_denoiser(teacher).to(place).eval()
    made: dict[str, Any] = {}
    for calls in steps:
        for settings in (PLAIN, BEST[domain_name]):
            label, started = f"{settings.law}, {settings.grid}", time.monotonic()
            made[label] = step_curve(
                domain, network, metrics, steps={calls: num}, settings=settings, known=made.get(label)
            )
            write_json(out, made)
            row = made[label]["by_steps"][str(calls)]
            print(f"{label}, {calls} calls: {row} in {time.monotonic() - started:.1f} s", flush=True)


def trains(backend: str, device: torch.device, dtype: torch.dtype) -> str:
    """Empty, or why a ragged batch cannot be trained on with this backend."""
    vocabulary = Vocabulary(32, pad=0)
    model = DiT(DiTConfig(hidden=64, layers=1, heads=2, positions=32, attention=backend), vocabulary).to(device)
    tokens = torch.randint(1, 32, (3, 16))
    tokens[1, 9:] = 0
    try:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = model(tokens.to(device)).float().square().mean()
        loss.backward()
        return "" if bool(torch.isfinite(loss)) else "the loss is not finite"
    except Exception as error:  # noqa: BLE001  # whatever a kernel raises is the answer
        return repr(error).splitlines()[0][:300]


def prepare(out: Path) -> None:
    """Pack the text, read the proteins once, and choose an attention backend."""
    record: dict[str, Any] = {}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    record["device"] = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    record["backends"] = {str(dtype): available_backends(device, dtype) for dtype in (torch.float32, torch.bfloat16)}
    for backend in ("auto", "sdpa", "eager"):
        problems = [trains(backend, device, dtype) for dtype in (torch.bfloat16, torch.float32)]
        record[f"trains with {backend}"] = problems
        if not any(problems):
            record["attention"] = backend
            break
    write_json(out, record)
    started = time.monotonic()
    for path in Path().glob("*.txt"):
        blocks = LanguageDomain(LanguageSettings(path=(path.name,))).blocks("train")
        record[path.name] = {"blocks": len(blocks), "seconds": round(time.monotonic() - started, 2)}
    started = time.monotonic()
    for path in Path().glob("train_amr_families.fasta"):
        batches = ProteinDomain(path.name, similarity=1.0).batches("train", 64, 0)
        first = next(batches).shape
        record[path.name] = {"seconds to the first batch": round(time.monotonic() - started, 2), "shape": list(first)}
        started = time.monotonic()
        for _ in range(100):
            next(batches)
        record[path.name]["ms a batch of 64"] = round(10 * (time.monotonic() - started), 3)
    write_json(out, {**record, "complete": True})
    print(json.dumps(record, indent=1))


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare, or draw curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", type=Path)
    parser.add_argument("--domain", choices=BEST)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--judge", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--num", type=int, default=256)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args(arguments)
    if given.prepare:
        prepare(given.prepare)
        return 0
    if not (given.domain and given.teacher and given.judge and given.out):
        parser.error("give --domain, --teacher, --judge and --out, or --prepare")
    curves(given.domain, given.teacher, given.judge, given.out, given.steps, given.num, given.device)
    return 0


if __name__ == "__main__":
    sys.exit(main())
