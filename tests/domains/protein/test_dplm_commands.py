"""A DPLM-layout teacher through the command line: distil, resume, sample, evaluate."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from dplm_files import random_model, write_folder
from safetensors.torch import load_file

from didi_core.cli import main

LIMIT = 12e9  # bytes: a student of DPLM's 150M must fit a machine of this size


def distill_words(folder: Path, run_dir: Path, longest: int = 300) -> list[str]:
    return [
        "distill",
        "domain=protein",
        "objective=didi",
        "data.min_length=30",
        f"data.max_length={longest}",
        f"teacher={folder}",
        f"run_dir={run_dir}",
        "training.steps=3",
        "training.batch_size=4",
        "training.checkpoint_every=2",
        "objective.baseline.group=2",
        "objective.reward.warmup=1",
        "objective.reward.trainable_blocks=1",
        "objective.reference_samples=4",
        "objective.reference_steps=2",
        "evaluate.enabled=false",
    ]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("dplm"), random_model(noise=0.02))


@pytest.fixture(scope="module")
def student(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student") / "run"
    assert main(distill_words(teacher, folder)) == 0
    return folder


def test_distillation_moves_the_student_and_saves_it(teacher: Path, student: Path) -> None:
    card = json.loads((student / "student" / "card.json").read_text())
    assert (card["architecture"], card["domain"]) == ("esm", "protein")
    assert card["config"]["layers"] == 2 and card["vocabulary"]["size"] == 32
    trained = load_file(student / "student" / "model.safetensors")
    original = torch.load(teacher / "pytorch_model.bin", weights_only=True)
    name = "esm.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(trained[name], original[name])
    frequencies = original["esm.encoder.layer.0.attention.self.rotary_embeddings.inv_freq"]
    assert torch.equal(trained["esm.rotary_embeddings.inv_freq"], frequencies)


def test_interrupted_run_ends_with_the_same_weights(teacher: Path, student: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = distill_words(teacher, run)
    assert main(words) == 0
    for newest in sorted((run / "checkpoints").glob("step_*"))[-1:]:
        for path in newest.iterdir():
            path.unlink()
        newest.rmdir()
    (run / "student" / "model.safetensors").unlink()
    assert main(words) == 0
    again, first = (load_file(folder / "student" / "model.safetensors") for folder in (run, student))
    assert all(torch.equal(again[name], first[name]) for name in first)


def test_a_student_that_reads_noise_learns_what_it_says_and_writes(teacher: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ours = [word for word in distill_words(teacher, run, 40) if not word.startswith("objective")]
    assert main([*ours, "objective=one_call_noise", "student.noise=6", "training.warmup=1"]) == 0
    card = json.loads((run / "student" / "card.json").read_text())
    weights = load_file(run / "student" / "model.safetensors")
    assert card["config"]["noise"] == 6 and weights["noise_map.0.weight"].shape == (32, 6)
    assert main(["export", f"run={run}", "format=hf", f"out={tmp_path / 'hf'}"]) == 0
    written = []
    for name, source in enumerate((run, tmp_path / "hf")):
        out = tmp_path / f"{name}.fasta"
        assert main(["sample", f"run={source}", "num=2", "steps=1", "length=12", f"out={out}"]) == 0
        written.append([line for line in out.read_text().splitlines() if not line.startswith(">")])
    assert len(written[0]) == 2 and written[0] == written[1]


@pytest.mark.parametrize("sampler", ["ancestral", "rgas", "dplm"])
def test_sampling_from_the_student(student: Path, tmp_path: Path, sampler: str) -> None:
    out = tmp_path / "made.fasta"
    words = ["sample", f"run={student}", "num=3", "steps=4", "length=12-20", f"sampler={sampler}", f"out={out}"]
    assert main(words) == 0
    sequences = [line for line in out.read_text().splitlines() if not line.startswith(">")]
    assert len(sequences) == 3 and all(12 <= len(s) <= 20 for s in sequences)
    assert all(set(s) <= set("ACDEFGHIKLMNPQRSTVWY") for s in sequences)


def test_evaluation_compares_with_the_folder_it_came_from(student: Path, tmp_path: Path) -> None:
    words = ["evaluate", f"run={student}", "num=6", "steps=2", "teacher_steps=2", "samplers=[ancestral,dplm]"]
    assert main([*words, f"out={tmp_path / 'report'}"]) == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert {"teacher", "student"} <= {row["model"] for row in report["rows"]}


@pytest.mark.heavy
def test_150m_distils_within_twelve_gigabytes(tmp_path: Path) -> None:
    """Three steps with DPLM's 150M sizes and random weights; the peak is that of the largest child process."""
    sizes = {"hidden_size": 640, "num_hidden_layers": 30, "num_attention_heads": 20, "intermediate_size": 2560}
    folder = tmp_path / "dplm_150m"
    folder.mkdir()
    write_folder(folder, random_model(noise=0.0, **sizes))
    words = [*distill_words(folder, tmp_path / "run", 40), "training.checkpoint_every=100"]  # one of 4.5 GB, at the end
    subprocess.run([sys.executable, "-m", "didi_core", *words], check=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f"peak resident memory: {peak / 1e9:.2f} GB")
    assert peak < LIMIT
