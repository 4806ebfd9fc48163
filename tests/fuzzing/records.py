"""Readers of records, reports, scores, predictions and caches."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import predictor_files
from plain_metrics import Number
from score_folder import score_folder

from didi_core.evaluation.cache import SampleCache, StatisticsCache
from didi_core.report.ablation import ablation
from didi_core.report.runs import read_run, side_by_side
from didi_core.report.to_json import SCHEMA
from didi_core.sampling.generate import Generated
from didi_core.storage.journal import Journal
from didi_core.storage.run_dir import RunDirectory, read_record
from didi_core.types import NFE, Sample
from didi_language.packing import Held, Packed
from didi_language.tokenizer import load_tokenizer, train_tokenizer
from didi_protein.design_report import read_designs
from didi_protein.design_report.page import html
from didi_protein.kept_split import _load as load_split
from didi_protein.structures.folder import read_folder
from didi_protein.structures.motif import read_map
from fuzzing.case import Case
from fuzzing.mutations import Mutate, as_archive, as_bytes, as_json, as_text

# --- records, scores and caches

INTERVAL = {"value": 1.0, "low": 0.9, "high": 1.1, "n": 4, "excluded": 0}
MAKING = {"steps": 2}


def record(folder: Path) -> None:
    with RunDirectory.open(folder, {"a": 1, "objective": {"name": "didi"}}) as run, run.stage("training"):
        run.note(updates=3, seconds=1.0)


def opened(folder: Path) -> None:
    read_record(folder / "run.json")
    with RunDirectory.open(folder, {"a": 1, "objective": {"name": "didi"}}) as run, run.stage("training"):
        run.note(updates=3)


def cache(folder: Path) -> None:
    SampleCache(folder).save(MAKING, Generated([Sample("ab", "x", (1, 2), {"n": 1})], NFE(2.0, 0.0), 1.5, (3.0,)))
    next(folder.glob("*.jsonl")).rename(folder / "x.jsonl")


def cached(folder: Path) -> None:
    kept = SampleCache(folder)
    path = kept.path(MAKING)
    assert path is not None
    (folder / "x.jsonl").rename(path)
    kept.load(MAKING)


def scores(folder: Path) -> None:
    score_folder(folder, count=3)


def shown(folder: Path) -> None:
    designs = read_designs(folder)
    html(designs, [d for d in designs if d.residues is not None][:1], [], {}, "as they are")
    for design in designs:
        if design.pdb is not None:
            design.atoms()


def journal(folder: Path) -> None:
    """As older versions wrote it: a hash in every line would hide its other values."""
    (folder / "x.jsonl").write_text('{"id": "a", "length": 3}\n{"id": "b", "length": null}\n')


SEQUENCE = "MKVACDEFGHIKLMNPQRST"
MAP = {"samples": {"a": {"contig": "5/A1-3/5", "pdb": "x.pdb", "pieces": [
    {"first": 6, "last": 8, "residues": "GGG", "source": "A1-3"}]}}}  # fmt: skip


def predictions(write: Callable[..., None], file: str, mutate: Mutate) -> Case:
    """A predictor's folder with two samples of one design."""

    def make(folder: Path) -> None:
        for sample in range(2):
            write(folder, "a", [SEQUENCE], sample=sample)

    return Case(file, make, lambda folder: read_folder(folder, [Sample(SEQUENCE, "a")]), mutate)


def split(folder: Path) -> None:
    np.savez_compressed(folder / "x.npz", part=np.zeros(5, np.uint8), clusters=2, by_similarity=True)


def packed(folder: Path) -> None:
    Packed.make(folder, ["one", "two"] * 8, load_tokenizer(), Held(0.3), {})


def tokenised(folder: Path) -> None:
    load_tokenizer(str(folder / "tokenizer.json")).many(["a b"])


def mapped(folder: Path) -> None:
    (folder / "x.map.json").write_text(json.dumps(MAP))


def tokenizer(folder: Path) -> None:
    train_tokenizer(["one two three"], 270).save(str(folder / "tokenizer.json"))


ROW_METHOD = {"sampler": "ancestral", "law": "iid", "grid": "uniform", "steps": 8, "top_p": 1.0}
METRICS = [{"name": n, "label": n, "better": b, "description": ""} for n, b in (("q", "lower"), ("e", "neither"))]
REPORT = {
    "schema": SCHEMA, "title": "x", "domain": "toy", "metrics": METRICS, "reference_entropy": 1.0, "provenance": {},
    "rows": [{"kind": "model", "model": name, "method": ROW_METHOD, "temperature": 1.0, "n": 4,
              "nfe": {"denoiser": 8.0, "scorer": 0.0}, "values": {"q": INTERVAL, "e": INTERVAL}}
             for name in ("student", "teacher")],
    "matched": [{"model": name, "method": ROW_METHOD, "status": "matched", "entropy": 1.0, "temperature": 1.0,
                 "quality": INTERVAL} for name in ("student", "teacher")],
}  # fmt: skip


def reported(folder: Path) -> None:
    for name in ("a", "b"):
        with RunDirectory.open(folder / name, {"seed": 1, "objective": {"name": "didi"}}) as run:
            run.note(updates=3)
        (folder / name / "report.json").write_text(json.dumps(REPORT))
        (folder / name / "metrics.jsonl").write_text('{"step": 1, "seconds": 2.0}\n')


def compared(folder: Path) -> None:
    runs = [read_run(folder / "a"), read_run(folder / "b")]
    side_by_side(runs)
    ablation(runs)


def statistics(folder: Path) -> None:
    StatisticsCache(folder).statistics(Costly(), [Sample("1"), Sample("2")])
    next((folder / "statistics").glob("*.npy")).rename(folder / "x.npy")


def recalled(folder: Path) -> None:
    kept = StatisticsCache(folder)
    samples = [Sample("1"), Sample("2")]
    (folder / "x.npy").rename(kept._path("costly", "1", samples))
    kept.statistics(Costly(), samples)


@dataclass(frozen=True)
class Costly(Number):
    """A metric whose statistics are kept."""

    name: str = "costly"
    identity: str = "1"


RECORDS = {
    "report.json": Case("a/report.json", reported, compared, as_json),
    "run.json beside a report": Case("a/run.json", reported, compared, as_json),
    "metrics.jsonl beside a report": Case("a/metrics.jsonl", reported, compared, as_json),
    "a cache of statistics": Case("x.npy", statistics, recalled, as_bytes),
    "run.json": Case("run.json", record, opened, as_json),
    "a cache of samples": Case("x.jsonl", cache, cached, as_json),
    "scores.jsonl": Case("scores.jsonl", scores, shown, as_json),
    "a score folder's PDB": Case("pdb/design_1.pdb", scores, shown, as_bytes),
    "Boltz's confidences": predictions(predictor_files.boltz, "predictions/a/confidence_a_model_0.json", as_json),
    "Boltz's errors": predictions(predictor_files.boltz, "predictions/a/pae_a_model_0.npz", as_archive),
    "Boltz's structure": predictions(predictor_files.boltz, "predictions/a/a_model_0.cif", as_text),
    "Chai's scores": predictions(predictor_files.chai, "a/scores.model_idx_0.npz", as_archive),
    "AlphaFold's confidences": predictions(predictor_files.alphafold3, "a/a_confidences.json", as_json),
    "OpenFold's confidences": predictions(
        predictor_files.openfold3, "a/seed_42/a_seed_42_sample_0_confidences.json", as_json
    ),
    "a journal of scores": Case("x.jsonl", journal, lambda f: Journal(f / "x.jsonl").rows(), as_json),
    "an index map": Case("x.map.json", mapped, lambda folder: read_map(folder / "x"), as_json),
    "a kept split": Case("x.npz", split, lambda folder: load_split(folder / "x.npz", 5), as_archive),
    "packed documents": Case("card.json", packed, Packed.open, as_json),
    "a tokenizer": Case("tokenizer.json", tokenizer, tokenised, as_json),
}  # fmt: skip
