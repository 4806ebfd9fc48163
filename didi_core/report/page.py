"""The shell of every report: one HTML file that stands alone, follows light or dark, and reads on a phone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from didi_core.report.pictures import VARIABLES, Plot

DARK = {
    "ink": "#e7e9ee",
    "muted": "#9aa3b2",
    "line": "#2c313c",
    "series-0": "#7aa7e8",
    "series-1": "#f28a55",
    "series-2": "#5cc4a1",
    "series-3": "#bd96e8",
    "series-4": "#dbb85a",
    "series-5": "#9aa3b2",
}

STYLE = """
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); 
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
main { max-width: 1120px; margin: 0 auto; padding: 2.2rem 1.2rem 4rem }
header p.kind { margin: 0; color: var(--muted); font-size: .82rem; letter-spacing: .06em; text-transform: uppercase }
h1 { font-size: 1.65rem; line-height: 1.25; margin: .1rem 0 1rem }
h2 { font-size: 1.12rem; margin: 2.6rem 0 .4rem }
p.lead { font-size: 1.12rem; margin: 0 0 1rem; padding: .9rem 1.1rem; background: var(--card);
  border-left: 4px solid var(--series-1); border-radius: 0 6px 6px 0 }
ul.notes { margin: 0 0 1rem; padding-left: 1.2rem; color: var(--muted); font-size: .92rem }
p.about, figcaption { color: var(--muted); font-size: .88rem; margin: .2rem 0 .7rem }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .7rem; margin: 1rem 0 }
.tile { background: var(--card); border-radius: 6px; padding: .7rem .9rem }
.tile b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; line-height: 1.3 }
.tile span { color: var(--muted); font-size: .82rem }
figure { margin: 1rem 0; background: var(--card); border-radius: 6px; padding: 1rem 1rem .3rem; overflow-x: auto }
figure svg { display: block; width: 100%; height: auto; max-width: 900px; margin: 0 auto; min-width: 520px }
figure svg text { font-family: inherit !important }
.wide { overflow-x: auto; margin: .4rem 0 }
table { border-collapse: collapse; width: 100%; font-size: .86rem; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .34rem .5rem; border-bottom: 1px solid var(--line); white-space: nowrap }
th { color: var(--muted); font-weight: 600; border-bottom: 1.5px solid var(--muted) }
th:first-child, td:first-child, td.words, th.words { text-align: left }
tbody tr.first td { border-top: 2px solid var(--muted) }
tr.control td { color: var(--muted) }
td .range { color: var(--muted) }
.dot { display: inline-block; width: .62em; height: .62em; border-radius: 50%; margin-right: .45em }
.better { color: var(--good); font-weight: 600 } .worse { color: var(--bad); font-weight: 600 }
pre { background: var(--card); border-radius: 6px; padding: .7rem .9rem; overflow-x: auto; font-size: .8rem;
  line-height: 1.5; white-space: pre-wrap; overflow-wrap: anywhere; margin: .3rem 0 1rem }
h3 { font-size: .92rem; margin: 1rem 0 0 }
details { margin: .6rem 0 } summary { cursor: pointer; color: var(--muted); font-size: .92rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; font-size: .88rem; margin: .6rem 0 }
dt { color: var(--muted) } dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums }
footer { margin-top: 3rem; color: var(--muted); font-size: .82rem }
@media (max-width: 600px) {
  main { padding: 1.2rem .8rem 3rem } h1 { font-size: 1.35rem } figure { padding: .6rem .4rem .2rem }
  dl { grid-template-columns: 1fr } dd { margin-bottom: .4rem } }
@media print { body { background: #fff } figure, pre { break-inside: avoid } }
"""


def page(title: str, kind: str, body: Sequence[str], *, style: str = "", scripts: str = "") -> str:
    """The whole document. No address in it leads out.

    Args:
        kind: small line over the title.
        body: HTML of its parts, empty ones left out.
        style: more CSS. scripts: script elements for the end of the body.
    """
    parts = [f'<header><p class="kind">{escape(kind)}</p><h1>{escape(title)}</h1></header>', *body]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{_colours()}{STYLE}{style}</style></head>\n"
        f"<body><main>\n{chr(10).join(part for part in parts if part)}\n</main>{scripts}</body></html>\n"
    )


def _colours() -> str:
    """The variables of the page and of the pictures, light and dark."""
    light = {name: colour for colour, name in VARIABLES.items()}
    light |= {"page": "#ffffff", "card": "#f5f6f8", "good": "#1c7a4f", "bad": "#b3261e"}
    dark = {**DARK, "page": "#14161b", "card": "#1c1f26", "good": "#6ad19c", "bad": "#ff8a80"}
    spelled = ["; ".join(f"--{name}: {colour}" for name, colour in scheme.items()) for scheme in (light, dark)]
    return f":root {{ {spelled[0]} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {spelled[1]} }} }}"


def picture(plot: Plot) -> str:
    """A plot with its caption."""
    return f"<figure>{plot.svg}<figcaption>{escape(plot.caption)}</figcaption></figure>"


def provenance(record: Mapping[str, Any]) -> str:
    """Plain entries of the run's record as a list, nested ones as JSON behind a fold."""
    if not record:
        return ""
    plain = {k: v for k, v in record.items() if not isinstance(v, Mapping | list | tuple)}
    nested = {k: v for k, v in record.items() if k not in plain}
    items = "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in plain.items())
    folds = "".join(
        f"<details><summary>{escape(str(k))}</summary>"
        f"<pre>{escape(json.dumps(v, indent=2, default=str))}</pre></details>"
        for k, v in nested.items()
    )
    return f"<h2>Provenance</h2><dl>{items}</dl>{folds}"


def table_row(cells: Sequence[str], words: Sequence[int], kind: str = "") -> str:
    """One line of a table; cells are HTML, ``words`` are the columns of text, ``kind`` its CSS class."""
    columns = "".join(
        f'<td class="words">{cell}</td>' if i in words else f"<td>{cell}</td>" for i, cell in enumerate(cells)
    )
    return f'<tr class="{kind}">{columns}</tr>' if kind else f"<tr>{columns}</tr>"


def table_of(headers: Sequence[str], lines: Sequence[str], words: Sequence[int]) -> str:
    """A table from ``table_row`` lines; wide ones scroll on their own."""
    head = "".join(
        f'<th class="words">{escape(header)}</th>' if i in words else f"<th>{escape(header)}</th>"
        for i, header in enumerate(headers)
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
