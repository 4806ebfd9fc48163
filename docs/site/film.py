"""Draws the moving picture of the README: a protein that teacher and student write, each in its number of calls.

``python docs/site/film.py`` draws ``docs/images/film.svg`` from ``docs/results/film.json``; with ``sample`` the two
first write anew, with seed 0: the samples are not chosen. A reader without motion sees the finished sequences.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from didi_core.domain.palette import GROUP_COLOURS, colour_of_letters, legend_of
from didi_protein.domain import PROPERTIES

DOCS = Path(__file__).parents[1]
RECORD, PICTURE = DOCS / "results" / "film.json", DOCS / "images" / "film.svg"
LENGTH = 144  # residues
MODELS = {  # calls, law and grid of each: the teacher as it is usually sampled, the student as it was trained
    "teacher": (64, "iid", "uniform"),
    "student": (4, "stratified", "power"),
}
ROW, CELL, LINE = 48, 17, 25  # letters in a line, and the pixels of one
LEFT, HEAD, GAP = 12, 34, 14  # pixels
TICK, HOLD = 0.11, 3.0  # seconds of a call, and at the end
FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def sampled() -> dict[str, Any]:
    """What each model writes: its letters, and the call that wrote each."""
    from didi_core.checkpoints.card import load_denoiser
    from didi_core.plugins import registry
    from didi_core.sampling.generate import SamplerSettings
    from didi_core.sampling.trace import spelled, trace

    domain = registry().domain("protein", {})
    networks = {"teacher": domain.teacher("bundled"), "student": load_denoiser(domain.bundled_student)}
    template = domain.template([LENGTH])[0].tolist()
    films = {}
    for name, (calls, law, grid) in MODELS.items():
        settings = SamplerSettings(steps=calls, law=law, grid=grid)
        states = [spelled(domain, state.rows[0]) for state in trace(domain, networks[name], settings, [template])]
        places = [i for i, text in enumerate(states[0]) if text is None]
        films[name] = {
            "calls": calls, "law": law, "grid": grid,
            "letters": "".join(str(states[-1][i]) for i in places),
            "written": [next(call for call, state in enumerate(states) if state[i] is not None) for i in places],
        }  # fmt: skip
    return {"command": "python docs/site/film.py sample", "films": films}


def drawn(record: dict[str, Any]) -> str:
    """The picture: a group of letters for each call, which appears when the call is made."""
    films = record["films"]
    seconds = TICK * max(film["calls"] for film in films.values()) + HOLD
    height = HEAD + LINE * -(-LENGTH // ROW) + GAP
    width, whole = 2 * LEFT + ROW * CELL, height * len(films) + 30
    shapes, motions = [], []
    for number, (name, film) in enumerate(films.items()):
        top = number * height
        shapes += _model(name, film, top)
        for call in range(1, film["calls"] + 1):
            when = 100 * TICK * call / seconds
            hidden, seen = f"0%, {when:.2f}% {{opacity: 0}}", f"{when + 0.01:.2f}% {{opacity: 1}}"
            motions.append(f"@keyframes {name}{call} {{{hidden} {seen}}}")
    style = (
        f"text {{font: 14px {FONT}; text-anchor: middle}} "
        ".t {font: 15px sans-serif; text-anchor: start; fill: #1f2328} "
        ".l {font: 13px sans-serif; text-anchor: start; fill: #59636e} "
        f"g {{animation: {seconds:.2f}s step-end infinite}} "
        "@media (prefers-reduced-motion: reduce) {g {animation: none !important}} "
    )
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {whole}" width="{width}" height="{whole}">',
        f"<title>One protein of {LENGTH} residues: {_said(films)}</title>",
        f"<style>{style}{' '.join(motions)}</style>",
        f'<rect width="{width}" height="{whole}" rx="8" fill="#ffffff"/>',
        *shapes, *_legend(height * len(films) + 8), "</svg>\n",
    ])  # fmt: skip


def _model(name: str, film: dict[str, Any], top: int) -> list[str]:
    colours = colour_of_letters(PROPERTIES)
    title = f'<tspan font-weight="bold">{name}</tspan>, {_calls(film)}'
    made = [f'<text class="t" x="{LEFT}" y="{top + 22}">{title}</text>']
    cells = [(LEFT + (i % ROW) * CELL, top + HEAD + i // ROW * LINE) for i in range(len(film["letters"]))]
    made += [f'<circle cx="{x + CELL / 2}" cy="{y + 10}" r="1.2" fill="#8c959f"/>' for x, y in cells]
    for call in range(1, film["calls"] + 1):
        made.append(f'<g style="animation-name: {name}{call}">')
        for (x, y), letter, when in zip(cells, film["letters"], film["written"], strict=True):
            if when == call:
                ground, ink = GROUP_COLOURS[colours[letter]]
                made.append(f'<rect x="{x}" y="{y}" width="{CELL}" height="20" fill="{ground}"/>')
                made.append(f'<text x="{x + CELL / 2}" y="{y + 15}" fill="{ink}">{letter}</text>')
        made.append("</g>")
    return made


def _legend(top: int) -> list[str]:
    made, x = [], LEFT
    for key in legend_of(PROPERTIES):
        made.append(f'<rect x="{x}" y="{top}" width="12" height="12" fill="{GROUP_COLOURS[key.colour][0]}"/>')
        made.append(f'<text class="l" x="{x + 17}" y="{top + 11}">{key.name}</text>')
        x += 36 + 7 * len(key.name)
    return made


def _calls(film: dict[str, Any]) -> str:
    return f"{film['calls']} calls"


def _said(films: dict[str, Any]) -> str:
    return " and ".join(f"the {name} writes it in {_calls(film)}" for name, film in films.items())


def main(words: Sequence[str]) -> None:
    """Draw the picture; with the word ``sample``, from new samples."""
    if "sample" in words:
        RECORD.write_text(json.dumps(sampled()) + "\n", encoding="utf-8")
    PICTURE.write_text(drawn(json.loads(RECORD.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
