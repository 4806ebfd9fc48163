"""A run's directory: one run at a time, one configuration, and run.json with what ran and how long it took."""

from __future__ import annotations

import fcntl
import importlib.metadata
import itertools
import json
import os
import platform
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from didi_core.errors import InputError
from didi_core.storage.files import check_links, is_temporary, read_json, remove_leftovers, write_json

RECORD, LOCK = "run.json", ".lock"
# Keys that may differ when a run is continued: its place, how it continues, how often it writes to disk, and whether
# blocks are compiled and networks sharded, which moves results less than another machine does.
HARMLESS = (
    "run_dir", "cache", "resume", "dry_run", "out", "compile", "parallel",
    "training.activation_checkpointing", "training.timeout", "training.log_every", "training.checkpoint_every",
)  # fmt: skip
SLICES = "training.accumulate"  # with another number of processes another, so that the batch is cut into as many slices
PACKAGES = (
    "didi-core", "torch", "transformers", "tokenizers", "datasets", "numpy", "hydra-core", "safetensors", "biopython"
)  # fmt: skip


@dataclass
class RunDirectory:
    """An open run directory; ``record`` is the content of run.json.

    writes: true in process 0; other processes know the directory but do not write to it.
    """

    path: Path
    record: dict[str, Any]
    _lock: int | None = field(default=None, repr=False)
    writes: bool = True

    @classmethod
    @contextmanager
    def open(
        cls,
        path: Path,
        config: Mapping[str, Any],
        command_line: Sequence[str] = (),
        world_size: int = 1,
        key: str = "run_dir",
        upgraded: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
        bound: bool = True,
    ) -> Iterator[RunDirectory]:
        """Create the directory, or continue in it. What a refused input would leave empty is removed again.

        Args:
            world_size: number of processes. bound: whether a run goes on only where they cut a batch into as
                many slices as before.
            key: the setting that names it, for messages.
            upgraded: converts the configuration of an older record to the current keys.

        Raises:
            InputError: the directory belongs to another configuration (the message names the keys that differ) or
                another cut of the batch, another run works in it, it holds something that is not a run, or a link
                in it leads out of it.
        """
        path = path.resolve()
        if path.exists() and not path.is_dir():
            raise InputError(f"{key}={path} is a file. Name a directory.")
        strange = [p for p in path.iterdir() if not _own(p)] if path.is_dir() and not (path / RECORD).exists() else []
        if strange:
            raise InputError(
                f"{key}={path} is not empty and holds no run ({strange[0].name} is there, {RECORD} is not). "
                "Name a new directory."
            )
        new = not (path / RECORD).exists()
        made = list(itertools.takewhile(lambda folder: not folder.exists(), (path, *path.parents)))
        path.mkdir(parents=True, exist_ok=True)
        check_links(path)
        lock = _take_lock(path / LOCK, key)
        try:
            record = _open_record(path / RECORD, config, command_line, world_size, key, upgraded, bound)
            run = cls(path, record, lock)
            remove_leftovers(path)
            run.save()
            with named(path):
                yield run
        except InputError:
            if new:
                _withdraw(path, made)
            raise
        finally:
            os.close(lock)  # releases it; the end of the process does so too

    @classmethod
    def follow(cls, path: Path, record: dict[str, Any]) -> RunDirectory:
        """The directory that another process of the same run has opened."""
        return cls(path, record, writes=False)

    def note(self, **entries: Any) -> None:
        """Add entries to run.json."""
        self.record.update(entries)
        self.save()

    def save(self) -> None:
        """Write run.json."""
        if self.writes:
            write_json(self.path / RECORD, self.record)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the wall time of a stage to run.json, and mark it done when it ends without an error."""
        started = time.monotonic()
        entry = self.record.setdefault("stages", {}).setdefault(name, {"seconds": 0.0, "done": False})
        try:
            yield
            entry["done"] = True
        finally:
            entry["seconds"] = round(entry.get("seconds", 0.0) + time.monotonic() - started, 3)
            self.save()

    def done(self, name: str) -> bool:
        """Whether a stage is finished."""
        return bool(self.record.get("stages", {}).get(name, {}).get("done"))


def _own(path: Path) -> bool:
    """Whether a file is the lock of a run directory, or an incomplete record of a killed process."""
    return path.name == LOCK or is_temporary(path, RECORD)


def _withdraw(path: Path, made: Sequence[Path]) -> None:
    """Remove the directory of a run that wrote nothing but its record, and the folders that were made for it."""
    found = list(path.iterdir())
    if any(one.name != RECORD and not _own(one) for one in found):
        return
    for one in found:
        one.unlink()
    with suppress(OSError):  # another process has begun something there
        for folder in made:
            folder.rmdir()


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Within, an exception gets the path of its run directory, which ``stopped_in`` reads."""
    try:
        yield
    except BaseException as error:
        if stopped_in(error) is None:
            error.run_dir = path  # type: ignore[attr-defined]
        raise


def stopped_in(error: BaseException) -> Path | None:
    """The run directory in which an error or an interruption occurred."""
    found: Path | None = getattr(error, "run_dir", None)
    return found


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any], allowed: Set[str] = frozenset()) -> list[str]:
    """``key: old -> new`` for every key whose value differs, without harmless and allowed ones.

    A key that an older record does not have counts as null.
    """
    flat_old, flat_new = (_leaves(json.loads(json.dumps(config, default=str))) for config in (old, new))
    differing = []
    for key in sorted({*flat_old, *flat_new} - {*HARMLESS, *allowed}):
        before, after = flat_old.get(key, "absent"), flat_new.get(key, "absent")
        if before != after and (before, after) != ("absent", None):
            differing.append(f"{key}: {before} -> {after}")
    return differing


def _leaves(node: Any, where: str = "") -> dict[str, Any]:
    """Dotted keys of all values. Those of groups in a list have their number in it: ``reward.0.clip``."""
    grouped = isinstance(node, list) and node and all(isinstance(one, Mapping) for one in node)
    if not isinstance(node, Mapping) and not grouped:
        return {where: node}
    inner = node.items() if isinstance(node, Mapping) else enumerate(node)
    found: dict[str, Any] = {}
    for name, value in inner:
        found |= _leaves(value, f"{where}.{name}" if where else str(name))
    return found


def _take_lock(path: Path, key: str) -> int:
    """A lock that ends with its process, so that kill -9 leaves nothing to clean up."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)  # the user's umask applies
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InputError(f"another process works in {path.parent}. Wait for it, or name another {key}.") from None
    return descriptor


def _open_record(
    path: Path,
    config: Mapping[str, Any],
    command_line: Sequence[str],
    world_size: int,
    key: str,
    upgraded: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    bound: bool,
) -> dict[str, Any]:
    """A new record, or the old one if its configuration and number of processes are the same."""
    plain = json.loads(json.dumps(config, default=str))
    if not path.exists():
        return {
            "id": uuid.uuid4().hex,
            "command_line": list(command_line),
            "config": plain,
            "working_directory": os.getcwd(),
            "versions": versions(),
            "git_commit": git_commit(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "world_size": world_size,
            "stages": {},
        }
    record = read_record(path, f"Name another {key}.")
    before = upgraded(record["config"])
    began = record.get("world_size", 1)
    free = bound and began != world_size  # other processes may cut a batch into the same slices
    differing = differing_keys(before, plain, {SLICES} if free else set())
    if differing:
        raise InputError(
            f"{path.parent} belongs to another configuration: {'; '.join(differing[:8])}"
            f"{f'; and {len(differing) - 8} more' if len(differing) > 8 else ''}. "
            f"Give the same settings to continue it, or name another {key}."
        )
    cut, now = began * _slices(before), world_size * _slices(plain)
    if free and cut != now:
        other = f"set {SLICES}={cut // world_size}, " if cut % world_size == 0 else ""
        raise InputError(
            f"{path.parent} was begun by {began} process(es), and {world_size} would continue it: the batch would be "
            f"cut into {now} slices, not {cut}. Start {began} (torchrun --nproc-per-node), {other}or name "
            f"another {key}."
        )
    if free and "training" in plain:
        before = {**before, "training": {**before["training"], "accumulate": _slices(plain)}}
    record["config"], record["world_size"] = dict(before), world_size
    record["working_directory"] = os.getcwd()
    record["continued"] = [*record.get("continued", []), time.strftime("%Y-%m-%dT%H:%M:%S%z")]
    return dict(record)


def _slices(config: Mapping[str, Any]) -> int:
    """Slices of a batch in each process."""
    training = config.get("training")
    found = training.get("accumulate", 1) if isinstance(training, Mapping) else 1
    return found if isinstance(found, int) else 1


def read_record(path: Path, fix: str = "Repeat the command that made it elsewhere.") -> dict[str, Any]:
    """The content of a run.json: a mapping whose ``config`` is a mapping. Raises InputError for anything else."""
    record = read_json(path, fix)
    for key, kind in (("config", dict), ("stages", dict), ("continued", list), ("command_line", list)):
        if not isinstance(record.get(key, None if key == "config" else kind()), kind):
            raise InputError(f"{path} is damaged: it is not the record of a run, as its {key} shows. {fix}")
    stages = record.get("stages", {}).values()
    if not all(isinstance(one, dict) and isinstance(one.get("seconds", 0.0), int | float) for one in stages):
        raise InputError(f"{path} is damaged: its stages have no seconds. {fix}")
    return record


def versions() -> dict[str, str]:
    """Versions of Python and of the packages on which results depend."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def git_commit() -> str | None:
    """Commit of this code's checkout, with ``+changes`` if files differ; None in an installed wheel."""
    root = Path(__file__).resolve().parent.parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if changed else "")


def _git(root: Path, *words: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(root), *words]  # a repository is read, its index left alone
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()
