"""Executes the notebooks again, each in an empty folder, and keeps what they printed.

    pip install -e ".[notebooks]" && python docs/site/notebooks.py

What a cell printed is kept as one text, without moving bars, colours and the name of the folder. Run it after a change
to a notebook, or to what a command prints: a slow test compares the words of both.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.output_widget import OutputWidget

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
WIDGETS = "application/vnd.jupyter.widget-view+json"
ERASING = ("clear_output", "update_display_data")


class Bar(OutputWidget):
    """A moving bar, which is not kept. Nothing of it is sent back to the kernel.

    nbclient would send every change, on the socket on which it waits for the cell's end, and may then wait for ever.
    """

    def send(self, *args: Any, **kwargs: Any) -> None:
        """Send nothing."""


def executed(path: Path, timeout: int = 600) -> Any:
    """A notebook after a run from its first cell to its last, with outputs that are small."""
    made = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder).resolve())
        client = NotebookClient(made, timeout=timeout, resources={"metadata": {"path": place}})
        client.widget_registry = {"@jupyter-widgets/output": {"OutputModel": Bar}}
        client.execute()
        for cell in made.cells:
            if cell.cell_type == "code":
                cell.outputs = small(cell.outputs, place)
                cell.metadata.pop("execution", None)  # when it ran
    made.metadata.pop("widgets", None)
    return made


def small(outputs: list[Any], folder: str) -> list[Any]:
    """The outputs of a cell: what it printed in one piece, then pictures and its value.

    rich shows what it prints as displayed text, and moving bars as widgets.
    """
    printed, others = "", []
    for output in outputs:
        data = {} if output.output_type in ERASING else output.get("data", {})
        plain = COLOUR.sub("", output.get("text") or data.get("text/plain", "")).replace(f"{folder}/", "")
        if WIDGETS in data:
            continue
        if output.output_type == "stream" or (output.output_type == "display_data" and "image/png" not in data):
            printed += plain
        elif data:
            output.data = {"text/plain": plain, **{kind: data[kind] for kind in ("image/png",) if kind in data}}
            others.append(output)
    lines = [line.rstrip() for line in printed.splitlines()]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")
    streams = [nbformat.v4.new_output("stream", name="stdout", text=f"{text}\n")] if text else []
    return [*streams, *others]


def main() -> None:
    """Execute all of them, and write them back."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for path in sorted(FOLDER.glob("*.ipynb")):
        made = executed(path)
        path.write_text(nbformat.writes(made) + "\n", encoding="utf-8")
        print(path.name, f"{path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
