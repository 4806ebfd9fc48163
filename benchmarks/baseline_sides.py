"""Commands of one tree, each in a process that finds the project's packages there and nowhere else."""

from __future__ import annotations

import importlib
import importlib.abc
import itertools
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baseline_cases import SPELLINGS, Case, Words

MODULE = "didi_core"
WRONG = 2  # exit code of a command whose words a tree does not know
PATIENCE = 300  # seconds until a checkpoint must be there
# Imported once, before processes are forked: they are what takes seconds, and no tree has its own.
WARM = ("hydra", "safetensors.torch", "Bio.SeqIO", "transformers.models.gpt2.modeling_gpt2", "datasets",
        "transformers.models.esm.modeling_esm")  # fmt: skip


def packages(root: Path) -> dict[str, Path]:
    """The project's packages by name: folders ``didi_*`` in the tree or in one of its folders."""
    places = [root, *(place for place in sorted(root.iterdir()) if place.is_dir())]
    return {made.parent.name: made.parent for place in places for made in sorted(place.glob("didi_*/__init__.py"))}


class Described(metadata.Distribution):
    """A distribution that is not installed: its name, version and entry points, from pyproject.toml."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.project = tomllib.loads((root / "pyproject.toml").read_text())["project"]

    def read_text(self, filename: str) -> str | None:
        if filename == "METADATA":
            return f"Metadata-Version: 2.1\nName: {self.project['name']}\nVersion: {self.project['version']}\n"
        if filename == "entry_points.txt":
            groups = self.project.get("entry-points", {}).items()
            return "\n".join("\n".join([f"[{g}]", *(f"{k} = {v}" for k, v in each.items())]) for g, each in groups)
        return None

    def locate_file(self, path: Any) -> Path:
        return self.root / str(path)


class Tree(importlib.abc.MetaPathFinder):
    """Finds the packages and the distribution of a tree, before those that are installed."""

    def __init__(self, root: Path, log: Path) -> None:
        """log: file that says where every module of the project came from."""
        self.log, self.places, self.distribution = log, packages(root), Described(root)

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if path is not None or name not in self.places:
            return None
        return PathFinder.find_spec(name, [str(self.places[name].parent)])

    def find_distributions(self, context: object = None) -> Iterator[metadata.Distribution]:
        wanted = getattr(context, "name", None)
        if wanted is None or wanted.replace("_", "-").lower() == self.distribution.name:
            yield self.distribution

    def note(self) -> None:
        """Write down where the project's modules came from."""
        own = {name: module for name, module in sys.modules.items() if name.split(".")[0] in self.places}
        lines = (f"{name}\t{getattr(module, '__file__', None) or 'nowhere'}\n" for name, module in own.items())
        with self.log.open("ab", buffering=0) as file:
            file.write("".join(lines).encode())  # at once: several processes write to it


def become(root: Path, log: Path, words: Sequence[str]) -> None:
    """Run ``python -m didi_core`` with these words in this process, from that tree. Leaves by SystemExit.

    The global random streams start elsewhere in every process, so that what reads one of them unseeded shows.
    """
    tree = Tree(root, log)
    sys.meta_path.insert(0, tree)
    sys.argv = [MODULE, *words]
    torch.seed()
    np.random.seed()
    random.seed()
    importlib.import_module(MODULE)
    tree.note()  # here too: one of several processes may leave without tidying up
    try:
        runpy.run_module(MODULE, run_name="__main__", alter_sys=True)
    finally:
        tree.note()


def warm_up() -> None:
    """Import what every command needs."""
    for name in WARM:
        with suppress(ImportError):
            importlib.import_module(name)


@dataclass
class Side:
    """A tree, and the folder that its commands write to. ``accepted``: which of ``SPELLINGS`` it knows."""

    label: str
    root: Path
    folder: Path
    accepted: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def path(self, name: str) -> Path:
        """Folder of a case."""
        return self.folder / name.replace("/", "__").replace(" ", "_").replace(",", "")

    def run(self, name: str, case: Case, more: Words, fill: Mapping[str, Path]) -> str:
        """Run a case in the words that this tree knows. Returns what went wrong, or an empty string."""
        path, began, code = self.path(name), time.monotonic(), WRONG
        path.mkdir(parents=True)
        keys = [word for word in case.words if word.startswith("@")]
        known = [[self.accepted[key]] if key in self.accepted else range(len(SPELLINGS[key])) for key in keys]
        for chosen in itertools.product(*known):
            said = {key: SPELLINGS[key][index] for key, index in zip(keys, chosen, strict=True)}
            words = [plain for word in case.words for plain in said.get(word, (word.format(**fill),))]
            shutil.rmtree(path / "run", ignore_errors=True)
            code = self._how(case)(path, (*words, *more))
            if code != WRONG:
                self.accepted |= dict(zip(keys, chosen, strict=True))
                break
        self.seconds += time.monotonic() - began
        return self._trouble(path, code)

    def _how(self, case: Case) -> Callable[[Path, Words], int]:
        if case.killed:
            return lambda path, words: self._killed(path, words, case.killed)
        if case.processes > 1:
            return lambda path, words: self._together(path, words, case.processes)
        return lambda path, words: os.waitstatus_to_exitcode(os.waitpid(self._start(path, words), 0)[1])

    def _trouble(self, path: Path, code: int) -> str:
        """Why a case counts as failed: its exit code with its last words, or code from elsewhere."""
        if code:
            said = (path / "log").read_text(errors="replace").splitlines() if (path / "log").exists() else []
            return f"exit code {code}: {next((line for line in reversed(said) if line.strip()), 'nothing was said')}"
        found = [Path(line.split("\t")[1]) for line in (path / "imports").read_text().splitlines()]
        strangers = [file for file in found if not file.resolve().is_relative_to(self.root)]
        if not found or strangers:
            return f"it imported {strangers[0] if strangers else 'nothing'} instead of what is in {self.root}"
        return ""

    def _start(self, path: Path, words: Words) -> int:
        """Fork a process that runs the command; its number."""
        sys.stdout.flush()
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            with (path / "log").open("a") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            os.environ["XDG_CACHE_HOME"] = str(self.folder / "cache")
            os.chdir(path)
            try:
                become(self.root, path / "imports", words)
                code = 0
            except SystemExit as leaving:
                code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def _killed(self, path: Path, words: Words, checkpoint: str) -> int:
        """Kill the command in the middle, then repeat it to its end."""
        child, deadline = self._start(path, words), time.monotonic() + PATIENCE
        while not (path / "run/checkpoints" / checkpoint).exists() and time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status) or self._said(path, f"{checkpoint} was never there")
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if (path / "run/student").exists():
            return self._said(path, "the run ended before it could be killed")
        return os.waitstatus_to_exitcode(os.waitpid(self._start(path, words), 0)[1])

    def _together(self, path: Path, words: Words, processes: int) -> int:
        """The command in several processes, as torchrun starts them."""
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        own = [str(Path(__file__).resolve()), str(self.root), str(path / "imports"), *words]
        with (path / "log").open("a") as log:
            ended = subprocess.run([*launcher, *own], cwd=path, stdout=log, stderr=subprocess.STDOUT, check=False)
        return ended.returncode

    @staticmethod
    def _said(path: Path, text: str) -> int:
        """A failure that the command itself does not know of."""
        with (path / "log").open("a") as log:
            print(text, file=log)
        return 1


if __name__ == "__main__":  # one of torchrun's processes
    become(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
