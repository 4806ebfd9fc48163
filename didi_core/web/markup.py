"""HTML of the page's moving parts. Every text in it is escaped, whoever it comes from."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from markupsafe import Markup

from didi_core.domain.palette import GROUP_COLOURS, colour_of_letters, legend_of, letter_groups
from didi_core.errors import counted, plural
from didi_core.evaluation.wording import figure
from didi_core.sampling.trace import spelled
from didi_core.types import Domain, Sample
from didi_core.web.drawing import Side, View, scores, written

MASKED = "·"
STYLE = """
.dark button.selected { color: var(--primary-400) !important } .gradio-container .or { color: inherit }
.didi-side { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: .7rem .9rem; min-height: 6rem }
.didi-side h3 { margin: 0; font-size: 1rem } .didi-side p { margin: .1rem 0 .5rem; opacity: .75; font-size: .85rem }
.didi-side progress { width: 100%; height: 6px; accent-color: #0072b2 }
.didi-text { font: 14px/1.75 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere;
  white-space: pre-wrap; margin: .5rem 0 }
.didi-text i, .didi-legend i { font-style: normal; border-radius: 2px }
.didi-text .m { opacity: .45 }
.didi-text .p, .didi-legend .p { text-decoration: underline; text-underline-offset: 3px; font-weight: 700 }
.didi-text .n { box-shadow: 0 0 0 1.5px currentColor }
.didi-legend { font-size: .82rem; display: flex; flex-wrap: wrap; gap: .3rem 1rem }
.didi-legend i { padding: 0 .35em; font-family: ui-monospace, monospace }
.didi-note { padding: .6rem .9rem; border-left: 4px solid #d55e00; border-radius: 4px; overflow-wrap: anywhere;
  background: var(--background-fill-secondary) }
.didi-scores { overflow-x: auto } .didi-scores :is(thead, tbody, tr) { border: 0 !important }
.didi-scores table { border-collapse: collapse; border: 0 !important; font-size: .86rem }
.didi-scores th, .didi-scores td { text-align: right; padding: .2rem .7rem !important; border: 0 !important;
  border-bottom: 1px solid var(--border-color-primary) !important }
.didi-scores th:first-child, .didi-scores td:first-child { text-align: left }
"""


def style() -> Markup:
    """The style sheet of the moving parts."""
    groups = (
        f".didi-text i.g{i}, .didi-legend i.g{i} {{ background: {back}; color: {ink} !important }}"
        for i, (back, ink) in enumerate(GROUP_COLOURS)
    )
    return Markup(f"<style>{STYLE}{' '.join(groups)}</style>")


def legend(domain: Domain) -> Markup:
    """The groups of letters with their colours, and what the marks mean."""
    parts = [Markup("<span><i>{}</i> not written yet</span>").format(MASKED)]
    parts.append(Markup('<span><i class="p">A</i> fixed from the start</span>'))
    parts += [Markup('<span><i class="g{}">{}</i> {}</span>').format(*key) for key in legend_of(letter_groups(domain))]
    return Markup('<div class="didi-legend">{}</div>').format(Markup("").join(parts))


def side(view: View, number: int) -> Markup:
    """One model's sequences at this moment, and how far it is."""
    shown = view.sides[number]
    texts = [
        Markup('<div class="didi-text" data-sample="{}">{}</div>').format(i + 1, _sequence(view, shown, i))
        for i in range(len(shown.now.rows))
    ]
    total = Markup('<progress max="{}" value="{}"></progress>').format(shown.total or 1, shown.now.call)
    return Markup('<div class="didi-side" data-finished="{}"><h3>{}</h3><p>{}</p>{}{}</div>').format(
        str(shown.finished).lower(), shown.label, _progress(shown), total if shown.total else "", Markup("").join(texts)
    )


def _progress(shown: Side) -> str:
    """Calls so far and the seconds that they took."""
    last = shown.total if shown.total and not shown.finished else shown.now.call
    of = f" of {last}" if shown.total and not shown.finished else ""
    return f"{shown.now.call}{of} {plural('call', last)}, {shown.now.seconds:.3f} s"


def _sequence(view: View, shown: Side, number: int) -> Markup:
    """The letters of one sequence, coloured; those of the latest call are framed."""
    group = colour_of_letters(letter_groups(view.domain))
    row, mask = shown.now.rows[number], view.domain.vocabulary.mask
    pieces: list[tuple[str, str]] = []
    for text, since, fixed in zip(spelled(view.domain, row), shown.since[number], view.templates[number], strict=True):
        if text is None:
            pieces.append(("m", MASKED))
            continue
        kinds = [f"g{group[text]}"] if text in group else []
        kinds += ["p"] if fixed != mask else ["n"] if since == shown.now.call and not shown.finished else []
        pieces.append((" ".join(kinds), text))
    runs = ((kind, "".join(text for _, text in run)) for kind, run in groupby(pieces, key=lambda piece: piece[0]))
    return Markup("").join(Markup('<i class="{}">{}</i>').format(kind, text) for kind, text in runs)


def score_table(view: View) -> Markup:
    """The metrics that so few samples allow, of both sides."""
    found = [scores(view.domain, samples) for samples in view.samples]
    names = dict.fromkeys(name for one in found for name in one)
    heads = [f"{shown.label}, {counted(shown.now.call, 'call')}" for shown in view.sides]
    body = [_row("td", [_label(found, name), *(_figure(one, name) for one in found)]) for name in names]
    num = counted(len(view.samples[0]), "sample")
    about = f"Of {num} each: an impression, not a comparison. For that, use didi evaluate."
    return Markup('<div class="didi-scores"><table>{}{}</table></div><p>{}</p>').format(
        _row("th", ["", *heads]), Markup("").join(body), about
    )


def _row(tag: str, cells: Iterable[str]) -> Markup:
    return Markup("<tr>{}</tr>").format(
        Markup("").join(Markup("<{0}>{1}</{0}>").format(Markup(tag), cell) for cell in cells)
    )


def _label(found: Sequence[Mapping[str, tuple[str, float]]], name: str) -> str:
    return next(one[name][0] for one in found if name in one)


def _figure(found: Mapping[str, tuple[str, float]], name: str) -> str:
    value = found[name][1] if name in found else math.nan
    return figure(value, digits=4).replace("-", "−") if math.isfinite(value) else ""


def download(domain: Domain, samples: Sequence[Sample]) -> Markup:
    """A link that holds the file itself, so nothing of a visitor is kept on the server."""
    content = base64.b64encode(written(domain, samples)).decode()
    return Markup('<a class="didi-file" download="samples{}" href="data:text/plain;base64,{}">{}</a>').format(
        domain.suffix, content, f"Take away {counted(len(samples), 'sequence')} ({domain.suffix.lstrip('.')})"
    )


def note(text: str) -> Markup:
    """A message to the visitor."""
    return Markup('<div class="didi-note" role="alert">{}</div>').format(text)
