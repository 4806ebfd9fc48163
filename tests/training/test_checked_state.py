"""A checkpoint that changed after it was written, or of another run, is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from didi_core.cli import WRONG, main
from didi_core.commands.common import note_machine
from didi_core.device import Machine
from didi_core.errors import InputError
from didi_core.processes import Processes
from didi_core.storage.run_dir import RunDirectory
from didi_core.training.state import FolderKeeper

TOY = ["pretrain", "domain=toy", "model=micro", "training.batch_size=8", "validation_batches=1", "training.steps=3"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of the same settings but for the seed, stopped before their end."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("a", "b"):
        assert main([*TOY, "training.checkpoint_every=2", f"seed={ord(name)}", f"run_dir={folder / name}"]) == 0
        shutil.rmtree(folder / name / "model")
        shutil.rmtree(folder / name / "checkpoints/step_0000003")
    return folder


def again(folder: Path) -> int:
    return main([*TOY, "training.checkpoint_every=2", "seed=97", f"run_dir={folder}"])


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("name", ["manifest.json", "model.safetensors", "optimiser.pt"])
def test_a_flipped_bit_is_refused(
    runs: Path, tmp_path: Path, name: str, share: float, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "a", tmp_path / "run")
    path = tmp_path / "run/checkpoints/step_0000002" / name
    path.write_bytes(flipped(path.read_bytes(), int(share * path.stat().st_size)))
    assert again(tmp_path / "run") == WRONG
    err = capsys.readouterr().err
    assert "step_0000002 is damaged" in err and name in err and "Traceback" not in err


def test_a_checkpoint_of_another_run_is_refused(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(runs / "a", tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints")
    shutil.copytree(runs / "b/checkpoints", tmp_path / "run/checkpoints")
    assert again(tmp_path / "run") == WRONG
    assert "is damaged: it belongs to another run" in capsys.readouterr().err


def test_a_run_of_another_precision_is_refused(runs: Path, tmp_path: Path) -> None:
    """``precision=auto`` is fp32 on a CPU and bf16 on a GPU, and the run's words are the same on both."""
    shutil.copytree(runs / "a", tmp_path / "run")
    record = json.loads((tmp_path / "run/run.json").read_text())
    network = nn.Linear(1, 1)
    with RunDirectory.open(tmp_path / "run", record["config"], ()) as opened:
        note_machine(opened, Machine(torch.device("cpu"), "fp32"), network)
        with pytest.raises(InputError, match="begun in fp32, and here, on cpu.*, precision=auto is bf16"):
            note_machine(opened, Machine(torch.device("cpu"), "bf16"), network)
    assert json.loads((tmp_path / "run/run.json").read_text())["precision"] == "fp32"


def test_a_checkpoint_under_another_number_is_refused(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "a", tmp_path / "run")
    (tmp_path / "run/checkpoints/step_0000002").rename(tmp_path / "run/checkpoints/step_0000001")
    assert again(tmp_path / "run") == WRONG
    assert "belongs to another checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("written", ["[]", '{"step": 2}', '{"step": 2, "files": 3}', "", "{" * 2000, "\ud7ff\x00"])
def test_a_manifest_that_is_none_is_refused(
    runs: Path, tmp_path: Path, written: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "a", tmp_path / "run")
    (tmp_path / "run/checkpoints/step_0000002/manifest.json").write_text(written)
    assert again(tmp_path / "run") == WRONG
    assert "step_0000002 is damaged" in capsys.readouterr().err


def test_the_state_of_another_optimiser_is_refused(tmp_path: Path) -> None:
    from didi_core.errors import InputError

    few, many = (torch.nn.Linear(2, width) for width in (2, 3))
    written = {"model": few, "optimiser": torch.optim.AdamW(few.parameters())}
    FolderKeeper(tmp_path).save(1, written)
    with pytest.raises(InputError, match="model does not fit what this run trains"):
        FolderKeeper(tmp_path).restore({"model": many})
    other = torch.optim.AdamW([*few.parameters(), *many.parameters()])
    with pytest.raises(InputError, match="optimiser does not fit"):
        FolderKeeper(tmp_path, processes=Processes()).restore({"model": few, "optimiser": other})


def test_metrics_are_cut_to_the_checkpoint_and_never_written_in_place(tmp_path: Path) -> None:
    keeper, network = FolderKeeper(tmp_path), torch.nn.Linear(2, 2)
    for step in (1, 2, 3):
        keeper.record(step, {"loss": 1.0})
    keeper.save(2, {"model": network})
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 4, "lo')
    before = path.stat().st_ino
    assert keeper.restore({"model": network}) == 2
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]
    assert path.stat().st_ino != before
