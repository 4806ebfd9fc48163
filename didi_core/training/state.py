"""Training checkpoints and metrics in a run directory: verified on reading, written atomically, resumed bit by bit.

checkpoints/step_0000500/   one file per network, optimiser and EMA (safetensors; optimisers through torch.save), or,
                            of a sharded training, one file of shards per process; manifest.json with their hashes
metrics.jsonl               one line per logged step
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from didi_core.errors import InputError, one_line, warn
from didi_core.processes import Processes
from didi_core.storage.files import read_json, remove_folder, sha256, write_atomic, write_folder, write_json
from didi_core.storage.fingerprint import json_hash
from didi_core.storage.tensors import on_host
from didi_core.training.objective import Scalars

MANIFEST = "manifest.json"
STATES = (".safetensors", ".pt")  # endings of the files of states
SHARDS = ".distcp"  # ending of a process's shards of all states
# What torch raises for a state that does not fit.
FOREIGN = (
    RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError, OSError, SafetensorError,
)  # fmt: skip
KEPT = 2  # checkpoints kept: the newest, and the one before it in case the newest is damaged
FORMER = {"ema": "average"}  # names of files in older checkpoints


class Stateful(Protocol):
    """Anything whose state can be saved and restored: a module, an optimiser, an EMA."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> object: ...


class Keeper(Protocol):
    """Where checkpoints and metrics go. ``FolderKeeper`` writes them to a run directory."""

    def restore(self, state: Mapping[str, Stateful]) -> int:
        """Restore the newest checkpoint and return its step; 0 if there is none."""
        ...

    def save(self, step: int, state: Mapping[str, Stateful]) -> None:
        """Save the state after ``step`` steps; the checkpoint is complete or absent."""
        ...

    def record(self, step: int, scalars: Scalars) -> None:
        """Append one line of metrics."""
        ...


def ignore(step: int, scalars: Scalars) -> None:
    """The default listener, which does nothing."""


@dataclass
class FolderKeeper:
    """Keeps checkpoints and metrics in ``folder``.

    resume: ``latest``, or ``previous`` to skip and remove a damaged newest checkpoint.
    processes: process 0 cleans up and writes; the others read after it.
    listener: called with every line of metrics, in the process that writes it.
    """

    folder: Path
    resume: str = "latest"
    run: str = ""  # identity of the run, stored in its checkpoints
    processes: Processes = field(default_factory=Processes)
    listener: Callable[[int, Scalars], None] = ignore

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted(p for p in (self.folder / "checkpoints").glob("step_*") if p.is_dir())

    def restore(self, state: Mapping[str, Stateful]) -> int:
        """Restore the newest checkpoint, and drop metrics written after it.

        Raises:
            InputError: the checkpoint is damaged, of another run, or seen by some of the processes only.
        """
        if self.processes.first:
            step = self._restore(state)
            return self.processes.broadcast(step)
        first = self.processes.broadcast(0)
        step = self._restore(state)
        if step != first:
            raise InputError(
                f"process {self.processes.rank} finds {step} finished steps in {self.folder}, and process 0 finds "
                f"{first}: run_dir must be on a file system that all machines share."
            )
        return step

    def _restore(self, state: Mapping[str, Stateful]) -> int:
        found = self.checkpoints()
        if self.processes.first and self.resume == "previous" and found and _damage(found[-1], self.run):
            remove_folder(found.pop())
        if not found:
            self._truncate_metrics(0)
            return 0
        newest = found[-1]
        damage = _damage(newest, self.run)
        if damage:
            before = f"the one before it, {found[-2].name}" if len(found) > 1 else "the beginning"
            raise InputError(
                f"checkpoint {newest} is damaged: {damage}. To continue from {before}, repeat with resume=previous."
            )
        if _is_older(newest):
            warn(f"{newest} is of an older version and names no run: that it belongs to this one is not checked.")
        step = int(read_json(newest / MANIFEST)["step"])
        for name, part in state.items():
            try:
                part.load_state_dict(_read(newest, name, part, list(state)))
            except FOREIGN as error:
                raise InputError(
                    f"checkpoint {newest}: {name} does not fit what this run trains ({one_line(error)}). Use another "
                    "run_dir."
                ) from None
        self._truncate_metrics(step)
        return step

    def save(self, step: int, state: Mapping[str, Stateful]) -> None:
        """Write a checkpoint under a temporary name, sync it, rename it, and drop the oldest.

        Process 0 writes it; of a sharded training every process writes its shards.
        """
        states = {name: part.state_dict() for name, part in state.items()}
        shards = {name: one for name, one in states.items() if _has_shards(one)}
        if not self.processes.first:
            if shards:
                self._write_shards(self.processes.broadcast(self.folder), shards)
            return

        def fill(folder: Path) -> None:
            files = self._write_shards(self.processes.broadcast(folder), shards) if shards else {}
            for name in (name for name in states if name not in shards):
                _write(folder, name, states[name])
            files |= {p.name: sha256(p) for p in sorted(folder.iterdir()) if p.name not in files}
            manifest = {"step": step, "run": self.run, "files": files}
            write_json(folder / MANIFEST, {**manifest, "sha256": json_hash(manifest)})

        write_folder(self.folder / "checkpoints" / f"step_{step:07d}", fill, replace=True)
        for old in self.checkpoints()[:-KEPT]:
            remove_folder(old)

    def _write_shards(self, folder: Path, shards: Mapping[str, dict]) -> dict[str, str]:
        from didi_core.training.sharded_state import write_shards

        return write_shards(folder, shards, self.processes)

    def record(self, step: int, scalars: Scalars) -> None:
        """Append a line to metrics.jsonl."""
        if not self.processes.first:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **scalars}) + "\n")
        self.listener(step, scalars)

    def _truncate_metrics(self, step: int) -> None:
        """Drop the lines of steps that will run again, and an incomplete last line."""
        path = self.folder / "metrics.jsonl"
        if not self.processes.first or not path.exists():
            return
        kept, content = [], path.read_bytes()
        for line in content.splitlines(keepends=True):
            try:
                if json.loads(line)["step"] <= step and line.endswith(b"\n"):
                    kept.append(line)
            except (ValueError, KeyError, TypeError, RecursionError):
                break  # the run was stopped in the middle of this line
        if b"".join(kept) != content:
            write_atomic(path, b"".join(kept))


def _is_tensors(state: Mapping) -> bool:
    return all(isinstance(value, torch.Tensor) for value in state.values())


def _has_shards(state: Mapping) -> bool:
    """Whether a state is of a sharded training."""
    if "torch.distributed.tensor" not in sys.modules:  # nothing here is sharded, and it takes a second to import
        return False
    from didi_core.training.sharded_state import is_sharded

    return is_sharded(state)


def _write(folder: Path, name: str, state: dict) -> None:
    if _is_tensors(state):
        save_file(on_host(state), folder / f"{name}.safetensors")
    else:
        with (folder / f"{name}.pt").open("wb") as file:  # given a path, torch hides that the disk is full
            torch.save(state, file)


def _read(folder: Path, name: str, part: Stateful, wanted: Sequence[str]) -> dict:
    """The state of that name, or of its former name in an older checkpoint, as ``part`` holds it."""
    if (folder / ".metadata").exists():
        from didi_core.training.sharded_state import read_shards, stored_names

        if name in stored_names(folder):
            return read_shards(folder, name, part)
    state = _read_whole(folder, name, wanted)
    if "torch.distributed.tensor" not in sys.modules:
        return state
    from didi_core.training.sharded_state import as_held

    return as_held(state, part)


def _read_whole(folder: Path, name: str, wanted: Sequence[str]) -> dict:
    for known in (name, *([FORMER[name]] if name in FORMER else [])):
        tensors, general = folder / f"{known}.safetensors", folder / f"{known}.pt"
        if tensors.exists():
            return load_file(tensors)
        if general.exists():
            return _unpickled(general)
    there = sorted(path.stem for path in folder.iterdir() if path.suffix in STATES)
    raise InputError(
        f"checkpoint {folder} has no {name!r}: it holds {', '.join(there)}, and this run trains {', '.join(wanted)}. "
        "It belongs to another objective: use another run_dir."
    )


def _unpickled(path: Path) -> dict:
    """What torch.save wrote. Raises InputError for a damaged file."""
    try:
        state: dict = torch.load(path, weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(f"checkpoint {path} is damaged ({one_line(error)}): use another run_dir.") from None
    return state


def _damage(folder: Path, run: str) -> str:
    """What is wrong with a checkpoint, or an empty string; older manifests have neither hash nor run."""
    try:
        manifest = read_json(folder / MANIFEST, "")
    except InputError as error:
        return f"manifest.json cannot be read ({str(error).strip()})"
    digest, files = manifest.pop("sha256", None), manifest.get("files")
    if digest != json_hash(manifest) and not (digest is None and manifest.keys() == {"step", "files"}):
        return "manifest.json has changed since it was written"
    step = manifest.get("step")
    if not isinstance(files, dict) or type(step) is not int or folder.name != f"step_{step:0>7}":
        return "manifest.json belongs to another checkpoint"
    if run and manifest.get("run", run) != run:
        return f"it belongs to another run ({manifest['run']})"
    for name, written in files.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if sha256(folder / name) != written:
            return f"{name} does not match its recorded hash"
    strange = sorted(p.name for p in folder.iterdir() if p.suffix in (*STATES, SHARDS) and p.name not in files)
    return f"{strange[0]} is not in manifest.json" if strange else ""


def _is_older(folder: Path) -> bool:
    """Whether a checkpoint is from a version whose manifests do not name their run and have no hash."""
    return "sha256" not in read_json(folder / MANIFEST)
