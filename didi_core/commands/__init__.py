"""The commands: one module each, with frozen ``Settings`` that mirror ``configs/<command>.yaml``, and ``run``.

A module is imported when its command is called, so ``--help`` does not wait for torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from didi_core.errors import InputError, unknown


@dataclass(frozen=True)
class Command:
    """A command, with a line on what it does and an example."""

    name: str
    about: str
    example: str
    configured: bool = True  # whether it has its own configuration
    module: str = ""  # module of didi_core.commands, if it is not the command's name
    parallel: bool = False  # whether torchrun may start several processes of it
    words: bool = False  # whether plain words may stand for settings; ``spelled`` of its module translates them
    goes_on: str = ""  # key of the folder in which the same command continues where it stopped

    def _load(self) -> ModuleType:
        return importlib.import_module(f"didi_core.commands.{self.module or self.name}")

    def spelled(self, words: Sequence[str]) -> list[str]:
        """The words after the command's name; plain ones are replaced by the settings that they stand for."""
        made: list[str] = self._load().spelled(words) if self.words else list(words)
        return made

    @property
    def settings(self) -> type[Any]:
        """The dataclass of its configuration."""
        kind: type[Any] = self._load().Settings
        return kind

    @property
    def run(self) -> Callable[..., Any]:
        """``run(settings, config, command_line)``, which returns the result; without configuration ``run(words)``."""
        function: Callable[..., Any] = self._load().run
        return function


COMMANDS = {
    command.name: command
    for command in (
        Command(
            "distill",
            "a few-step student from a teacher, compared with it",
            "domain=protein",
            parallel=True,
            goes_on="run_dir",
        ),
        Command(
            "pretrain",
            "a teacher or a judge from your own data",
            "domain=protein data.path=my.fasta",
            parallel=True,
            goes_on="run_dir",
        ),
        Command(
            "sample",
            "sequences from a model",
            "run=<run directory> num=100 steps=16",
            parallel=True,
            goes_on="run_dir",
        ),
        Command(
            "evaluate",
            "student against teacher over steps, with error bars",
            "run=<run directory>",
            parallel=True,
            goes_on="out",
        ),
        Command(
            "score",
            "designs judged one by one: structure, confidence, novelty",
            "input=designs.fasta",
            parallel=True,
            goes_on="out",
        ),
        Command("filter", "a shortlist of scored designs, with reasons", "input=<score folder> preset=standard top=20"),
        Command("report", "runs side by side, or the table of an ablation", "compare <run> <run>", words=True),
        Command("import", "a published checkpoint as a run", "source=mdlm.ckpt domain=language", True, "importing"),
        Command("export", "a run's model for other programs", "run=<run directory> format=hf out=<folder>"),
        Command("demo", "a web page: watch models fill in a sequence call by call", "run=<run directory>"),
        Command("push", "a model with its card, to a folder or the Hugging Face hub", "run=<run> to=<owner>/<name>"),
        Command("pull", "a model of the hub as a run directory", "source=<owner>/<name> run_dir=mine"),
        Command("plugins", "what is installed: plugins and what they offer", "[--json]", configured=False),
        Command(
            "new-plugin",
            "a plugin of your own to start from: one new idea in a distribution that runs",
            "NAME [--kind domain|law|grid|sampler|reward|text_reward|objective|metric|tracker] [out=FOLDER]",
            False,
            "new_plugin",
        ),
        Command("doctor", "what runs here, what is missing for what, and the command that adds it", ""),
    )
}


def find(name: str) -> Command:
    """The command of that name. Raises InputError where there is no such command."""
    if "=" in name:
        known = ", ".join(COMMANDS)
        raise InputError(f"{name!r} stands where the command goes: didi <command> {name}. Commands: {known}.")
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    return COMMANDS[name]
