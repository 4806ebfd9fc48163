"""report.html: one file that stands alone, follows light or dark, and reads on a phone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from didi_core.compare import figure, indistinct
from didi_core.evaluation import Row
from didi_core.pictures import SERIES, VARIABLES, Plot
from didi_core.report import Report, described, estimate, main_table, matched_table

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


def html(report: Report, plots: Sequence[Plot]) -> str:
    """The page: verdict, figures, pictures, tables, samples to read, provenance. No address in it leads out."""
    named = {plot.name: plot for plot in plots}
    body = [
        f'<header><p class="kind">didi_core · {escape(report.evaluation.domain)}</p>'
        f"<h1>{escape(report.title)}</h1></header>",
        f'<p class="lead">{escape(report.sentence)}</p>',
        _notes(report),
        _tiles(report),
        *(_figure(named[name]) for name in ("frontier", "steps") if name in named),
        _matched(report),
        _main(report),
        _figure(named["training"]) if "training" in named else "",
        _all_metrics(report),
        _examples(report),
        _provenance(report.provenance),
        "<footer>Written by didi_core. Intervals: percentile bootstrap over samples, 95 %. "
        "All numbers are in report.json.</footer>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(report.title)}</title><style>{_colours()}{STYLE}</style></head>\n"
        f"<body><main>\n{chr(10).join(part for part in body if part)}\n</main></body></html>\n"
    )


def _colours() -> str:
    """The variables of the page and of the pictures, light and dark."""
    light = {name: colour for colour, name in VARIABLES.items()}
    light |= {"page": "#ffffff", "card": "#f5f6f8", "good": "#1c7a4f", "bad": "#b3261e"}
    dark = {**DARK, "page": "#14161b", "card": "#1c1f26", "good": "#6ad19c", "bad": "#ff8a80"}
    spelled = ["; ".join(f"--{name}: {colour}" for name, colour in scheme.items()) for scheme in (light, dark)]
    return f":root {{ {spelled[0]} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {spelled[1]} }} }}"


def _notes(report: Report) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    return f'<ul class="notes">{items}</ul>' if items else ""


def _tiles(report: Report) -> str:
    """The comparisons as large figures, one for each number of steps of the first compared model and method."""
    shown = [c for c in report.findings.comparisons if c.ratio is not None and c.method.steps is not None]
    shown = [c for c in shown if (c.model, c.method.label) == (shown[0].model, shown[0].method.label)]
    tiles = []
    for item in sorted(shown, key=lambda c: c.method.steps or 0)[:6]:
        if item.ratio is not None:
            percent = f"{100 * (item.ratio.value - 1):+.0f} %".replace("-", "−")
            tone = item.verdict if item.verdict in ("better", "worse") else ""
            label = f"{report.evaluation.metrics[0].label} at {item.method.steps} steps against the {item.baseline}"
            tiles.append(
                f'<div class="tile"><b class="{tone}">{percent}</b><span>{escape(label)}, matched entropy</span></div>'
            )
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _figure(plot: Plot) -> str:
    return f"<figure>{plot.svg}<figcaption>{escape(plot.caption)}</figcaption></figure>"


def _matched(report: Report) -> str:
    if not report.findings.comparisons:
        return ""
    headers, cells = matched_table(report)
    lines = []
    for line in cells:
        marked = [_dot(report, line[0]) + escape(line[0]), *(_range(cell) for cell in line[1:])]
        tone = line[6] if line[6] in ("better", "worse") else ""
        marked[6] = f'<span class="{tone}">{escape(line[6])}</span>'
        lines.append(_row(marked, words=(0, 1, 6)))
    return (
        f"<h2>{escape(report.evaluation.metrics[0].label.capitalize())} at matched entropy "
        f"({report.evaluation.at:.3f} nats)</h2>"
        '<p class="about">Both models read where their temperature sweeps meet the entropy of held-out data, under the '
        "same sampler, law, grid and steps. Difference: model against baseline, lower is better. "
        "Worth: steps that the baseline needs for the same quality.</p>" + _table(headers, lines, words=(0, 1, 6))
    )


def _main(report: Report) -> str:
    headers, cells, rows = main_table(report)
    blurred = set(indistinct(report.evaluation, report.evaluation.metrics[0]))
    words = tuple(i for i, header in enumerate(headers) if header in ("", "method"))
    headers = [*headers, "samples / s", "samples"]
    lines, before = [], ""
    for line, row in zip(cells, rows, strict=True):
        name = _dot(report, row.model) + escape(row.model) if row.kind in ("model", "file") else escape(row.model)
        name += ' <span class="range">≈ data</span>' if row.model in blurred else ""
        rate = f"{figure(row.rate)}" if row.rate else ""
        marked = [name, *(_range(cell) for cell in line[1:]), rate, f"{row.n:,}"]
        group = row.model if row.kind in ("model", "file") else "reference"
        kind = " ".join(
            ([row.kind] if row.kind == "control" else []) + (["first"] if before and group != before else [])
        )
        lines.append(_row(marked, words=words, kind=kind))
        before = group
    return (
        "<h2>Samples as they come, temperature 1</h2>"
        f'<p class="about">{escape(described(report))}NFE: calls of every network per sample. '
        "Seconds: in the sampler, for all samples of the row, "
        "after a warm-up. Controls are held-out data made worse: where the quality rates them like data, “≈ data”.</p>"
        + _table(headers, lines, words)
    )


def _all_metrics(report: Report) -> str:
    """Every metric of every row, temperatures included, behind a fold."""
    metrics = report.evaluation.metrics
    headers = ["", "method", "steps", "T", *(metric.label for metric in metrics)]
    lines = [_row(_metric_cells(report, row), words=(0, 1)) for row in report.evaluation.rows]
    table = _table(headers, lines, words=(0, 1))
    return f"<details><summary>All metrics of all rows, every temperature</summary>{table}</details>"


def _metric_cells(report: Report, row: Row) -> list[str]:
    method = [escape(row.method.label), str(row.method.steps or "")] if row.method else ["", ""]
    temperature = f"{row.temperature:g}" if row.temperature is not None else ""
    values = [_range(estimate(row.values.get(metric.name))) for metric in report.evaluation.metrics]
    return [_dot(report, row.model) + escape(row.model), *method, temperature, *values]


def _examples(report: Report) -> str:
    parts = [
        f"<h3>{escape(name)}</h3><pre>{escape(chr(10).join(sample.text[:600] for sample in samples))}</pre>"
        for name, samples in report.evaluation.examples.items()
    ]
    return (
        f"<h2>Samples to read</h2><p class='about'>The first of each set, not chosen.</p>{''.join(parts)}"
        if parts
        else ""
    )


def _provenance(record: Mapping[str, Any]) -> str:
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


def _dot(report: Report, model: str) -> str:
    """The model's colour in the pictures."""
    models = list(dict.fromkeys(row.model for row in report.evaluation.rows if row.kind in ("model", "file")))
    if model not in models:
        return ""
    return f'<span class="dot" style="background: var(--series-{models.index(model) % len(SERIES)})"></span>'


def _range(cell: str) -> str:
    """``value [low, high]`` with the interval in a quieter colour."""
    value, bracket, rest = cell.partition(" [")
    return f'{escape(value)} <span class="range">[{escape(rest)}</span>' if bracket else escape(cell)


def _row(cells: Sequence[str], words: Sequence[int], kind: str = "") -> str:
    columns = "".join(
        f'<td class="words">{cell}</td>' if i in words else f"<td>{cell}</td>" for i, cell in enumerate(cells)
    )
    return f'<tr class="{kind}">{columns}</tr>' if kind else f"<tr>{columns}</tr>"


def _table(headers: Sequence[str], lines: Sequence[str], words: Sequence[int]) -> str:
    head = "".join(
        f'<th class="words">{escape(header)}</th>' if i in words else f"<th>{escape(header)}</th>"
        for i, header in enumerate(headers)
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
