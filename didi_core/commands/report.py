"""``report``: show several runs side by side, or the table of an ablation over seeds, from their report.json."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from didi_core.commands.common import CommonSettings
from didi_core.commands.grammar import written
from didi_core.errors import InputError
from didi_core.report.ablation import ablation, read_ablation
from didi_core.report.page import Cell, Grid, Line, render
from didi_core.report.runs import read_run, side_by_side
from didi_core.report.side_tables import Table
from didi_core.report.to_html import Shown
from didi_core.report.to_markdown import inline, section
from didi_core.storage.files import write_atomic, write_json
from didi_core.storage.run_dir import git_commit

SCHEMA = "didi_core.runs/1"


@dataclass(frozen=True, kw_only=True)
class Settings(CommonSettings):
    """``configs/report.yaml``: run directories to compare, or directories of multiruns with an ablation."""

    compare: tuple[Path, ...] | None = None
    ablation: tuple[Path, ...] | None = None
    reference: str | None = None
    out: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.compare is None) == (self.ablation is None):
            raise InputError("give either compare=[<run>,<run>,...] or ablation=<directory of a multirun>.")
        if self.compare is not None and not self.compare:
            raise InputError("compare=[] is empty: give the run directories to compare.")
        if self.ablation is not None and not self.ablation:
            raise InputError("ablation=[] is empty: give the directory of a multirun, or of several.")
        if self.reference is not None and self.ablation is None:
            raise InputError(
                f"reference={self.reference} is an objective of ablation=<directory of a multirun>: give that."
            )


def spelled(words: Sequence[str]) -> list[str]:
    """The words of ``report compare RUN RUN`` and ``report ablation DIRECTORY`` as settings; others as they are."""
    if not words or words[0] not in ("compare", "ablation"):
        return list(words)
    named = [word for word in words[1:] if "=" not in word or Path(word).exists()]
    rest = [word for word in words[1:] if word not in named]
    return [f"{words[0]}={written(named)}", *rest]


def run(settings: Settings, config: Mapping[str, Any], command_line: tuple[str, ...]) -> Path:
    """Write runs.json, runs.md and runs.html, and print the tables."""
    del config
    notes: list[str] = []
    if settings.ablation is not None:
        runs, notes = read_ablation(settings.ablation)
        title, (sentence, more, tables) = "Ablation", ablation(runs, settings.reference)
    else:
        runs = [read_run(path) for path in settings.compare or ()]
        title, (sentence, more, tables) = "Runs side by side", side_by_side(runs)
    notes += more
    record = {
        "command_line": " ".join(command_line),
        "git_commit": git_commit(),
        "runs": {str(run.path): run.report["provenance"].get("git_commit") for run in runs},
    }
    folder = settings.out or Path("outputs") / "report" / time.strftime("%Y-%m-%d_%H-%M-%S")
    plain = {"schema": SCHEMA, "title": title, "sentence": sentence, "notes": notes}
    write_json(folder / "runs.json", {**plain, "tables": [asdict(table) for table in tables], "provenance": record})
    said = [f"# {title}", inline(sentence), *(f"> {inline(note)}" for note in notes)]
    text = "\n\n".join([*said, *_flat(map(section, tables))]) + "\n"
    write_atomic(folder / "runs.md", text)
    write_atomic(folder / "runs.html", _html(title, runs[0].report["domain"], sentence, notes, tables, record))
    print(text)
    print(f"report: {folder / 'runs.html'}")
    return folder


def _flat(parts: Any) -> list[str]:
    return [line for part in parts for line in part]


def _html(
    title: str, domain: str, sentence: str, notes: Sequence[str], tables: Sequence[Table], record: Mapping[str, Any]
) -> str:
    shown = [
        Shown(t.title, t.about, Grid(t.headers, [Line(tuple(map(Cell, line))) for line in t.cells], t.words))
        for t in tables
    ]
    kind = f"didi_core · {domain}"
    return render("runs.html", title=title, kind=kind, sentence=sentence, notes=notes, tables=shown, record=record)
