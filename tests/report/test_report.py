"""The report stands alone: a versioned record, tables that fit, a page without an address in it."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from plain_metrics import Number, Ratio
from rich.console import Console

from didi_core.evaluation.frontier import SweepPoint, frontier
from didi_core.evaluation.intervals import Interval, bootstrap
from didi_core.evaluation.rows import HELD_OUT, Evaluation, Method, MetricInfo, Row
from didi_core.report import plots
from didi_core.report.plots import training_plot
from didi_core.report.record import Report, build_report, read_training
from didi_core.report.side_tables import Table, precision_table
from didi_core.report.tables import main_table
from didi_core.report.to_json import SCHEMA, report_json
from didi_core.report.to_terminal import print_report
from didi_core.report.write import write_report
from didi_core.types import NFE, Sample

QUALITY, ENTROPY = Ratio(), Number(name="entropy", label="entropy", better="neither")
INFOS = (
    MetricInfo("perplexity", "perplexity", "lower", "under a small judge"),
    MetricInfo("entropy", "entropy", "neither"),
    MetricInfo("distinct", "distinct", "higher"),
)
VOID = {"meta", "br", "hr", "img", "input", "link"}


def statistics(log_quality: float, entropy: float, n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(int(1000 * log_quality) + int(1000 * entropy))
    tokens = random.integers(50, 150, n).astype(np.float64)
    quality = np.stack([tokens * (log_quality + 0.1 * random.standard_normal(n)), tokens], axis=1)
    return quality, (entropy + 0.05 * random.standard_normal(n))[:, None]


def row(model: str, kind: str, log_quality: float, entropy: float, method: Method | None = None, **rest: float) -> Row:
    quality, spread = statistics(log_quality, entropy)
    values = {"perplexity": bootstrap(QUALITY, quality, 100), "entropy": bootstrap(ENTROPY, spread, 100)}
    values["distinct"] = Interval(0.99, 0.97, 1.0, 120)
    steps = (method.steps if method else None) or 0
    cost = {"nfe": NFE(float(steps)), "seconds": 0.01 * steps} if method else {}
    return Row(model, kind, 120, values, method, rest.get("temperature"), **cost)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def report() -> Report:
    rows = [row(HELD_OUT, "data", 1.9, 2.6), row("shuffled", "control", 2.9, 2.6), row("repeats", "control", 1.7, 2.0)]
    frontiers = {}
    examples = {HELD_OUT: [Sample("MKT<b>&", "x")]}
    for law in ("iid", "dilated"):
        for model, gain in (("teacher", 0.0), ("student", 0.2)):
            for steps in (4, 8, 128) if model == "teacher" else (4, 8):
                method, points = Method("ancestral", law, "power 3", steps), []
                for t in (0.8, 1.0, 1.2):
                    where = (2.0 + 1 / steps - gain + t - 1, 2.55 + 0.5 * (t - 1))
                    rows.append(row(model, "model", *where, method, temperature=t))
                    points.append(SweepPoint(t, *statistics(*where)))
                frontiers[model, method] = frontier(QUALITY, ENTROPY, points, resamples=100)
                examples[f"{model}, {steps} steps"] = [Sample("ACDEFG" * 40)]
    rows.append(row("teacher", "model", 2.0, 2.6, Method("first_hitting", "", "", None), temperature=1.0))
    at = rows[0].values["entropy"].value
    evaluation = Evaluation(
        "protein", INFOS, tuple(rows), frontiers, at, examples, variety=INFOS[2], variety_frontiers=frontiers
    )
    training = [{"step": i, "reward": i / 10, "kl": 0.1, "entropy": 2.0, "gradient_norm": 1.0} for i in range(40)]
    record = {"command": "python -m didi_core distill", "config": {"seed": 0}, "note": "<script>alert(1)</script>"}
    return build_report(evaluation, title="Student & teacher", provenance=record, training=training)


@pytest.fixture(scope="module")
def folder(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("run")
    write_report(made, report)
    return made


def test_everything_is_written(folder: Path) -> None:
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    pictures = [f"plots/{name}.png" for name in ("frontier", "steps", "training")]
    assert names == [*pictures, "report.html", "report.json", "report.md"]
    assert all((folder / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_schema(folder: Path) -> None:
    found = json.loads((folder / "report.json").read_text())
    assert found["schema"] == SCHEMA == "didi_core.report/3"
    assert list(found) == [
        "schema", "title", "domain", "sentence", "notes", "metrics", "quality", "entropy", "reference_entropy",
        "baseline", "rows", "frontiers", "matched", "comparisons", "variety", "at_variety", "differences",
        "acceleration", "examples", "films", "precision", "provenance", "timing",
    ]  # fmt: skip
    assert (found["quality"], found["entropy"], found["baseline"]) == ("perplexity", "entropy", "teacher")
    first = found["rows"][3]
    assert set(first["values"]["perplexity"]) == {"value", "low", "high", "n", "left_out"}
    assert set(first["method"]) == {"sampler", "law", "grid", "steps", "top_p"}
    assert first["nfe"] == {"denoiser": 4.0, "scorer": 0.0} and "seconds" not in first
    assert found["timing"][0]["samples_per_second"] == 3000.0
    assert len(found["frontiers"]) == len(found["matched"]) == 10
    assert [len(curve["points"]) for curve in found["frontiers"]] == [3] * 10
    assert {c["verdict"] for c in found["comparisons"]} == {"better"} and len(found["comparisons"]) == 4
    assert all(a["factor"]["value"] >= 1 for a in found["acceleration"])


def test_the_page_on_the_schema_has_every_field_and_no_other(folder: Path) -> None:
    found = json.loads((folder / "report.json").read_text())
    page = (Path(__file__).resolve().parents[2] / "docs" / "report_schema.md").read_text()
    about = {
        field: text
        for cell, text in re.findall(r"^\| (`.+?`) \| (.+) \|$", page, re.M)
        for field in re.findall(r"`(\w+)`", cell)
    }
    assert set(about) == set(found)
    paragraphs = {name: text for name, text in re.findall(r"^An? \*\*(\w+)\*\* is (.+?)\n\n", page, re.M | re.S)}
    first = found["rows"][3]
    told = {
        **{field: about[field] for field in found if isinstance(found[field], list) and field not in ("rows", "notes")},
        **{"interval": paragraphs["interval"], "method": paragraphs["method"], "rows": paragraphs["row"]},
    }
    parts = {field: found[field] for field in told if field in found}
    parts |= {"interval": [first["values"]["perplexity"]], "method": [first["method"]]}
    for field, entries in parts.items():
        for entry in entries:
            assert not [key for key in entry if f"`{key}`" not in told[field]], field


def test_numbers_that_are_none_become_null(report: Report) -> None:
    nan = float("nan")
    hollow = Row("m", "file", 3, {"perplexity": Interval(nan, nan, nan, 0, 3)})
    evaluation = Evaluation("toy", INFOS, (hollow,), {}, None, {})
    plain = report_json(build_report(evaluation))
    assert json.loads(json.dumps(plain, allow_nan=False))["rows"][0]["values"]["perplexity"]["value"] is None
    json.dumps(report_json(report), allow_nan=False)


def test_page_has_no_address(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert not re.search(r"https?:|//\w|@import|url\((?!#)", page)
    assert not re.search(r"<(script|link|iframe|img)\b", page)
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page


def test_page_is_well_formed_and_escaped(folder: Path) -> None:
    class Balance(HTMLParser):
        open: list[str] = []
        seen: set[str] = set()
        ids: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.seen.add(tag)
            self.ids += [value for key, value in attrs if key == "id" and value]
            if tag not in VOID:
                self.open.append(tag)

        def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.seen.add(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    parser = Balance()
    parser.feed((folder / "report.html").read_text())
    assert parser.open == []
    assert {"svg", "table", "pre", "details"} <= parser.seen and "b" in parser.seen
    page = (folder / "report.html").read_text()
    assert "&lt;script&gt;" in page and "MKT&lt;b&gt;&amp;" in page and "Student &amp; teacher" in page


def test_page_has_its_sections_and_the_data_of_every_plot(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    titles = ["By number of steps", "Frontier", "Cost", "Diversity", "Samples to read", "Provenance"]
    places = [page.index(mark) for mark in ("lead", *(f">{title}<" for title in titles))]
    assert page.index(">Frontier<") < page.index("at matched entropy (") < page.index(">Cost<")
    assert places == sorted(places)
    assert page.count("<summary>Data of") == page.count('<div class="panels">') == 3


def test_precisions_stand_side_by_side() -> None:
    exact, joint = Method("ancestral", "iid", "uniform", 16), Method("joint_fp32", "", "uniform", 16)
    rows = tuple(
        row("teacher", "model", quality, 2.6, method, temperature=1.0)
        for quality, method in ((2.4, exact), (2.1, joint))
    )
    made = build_report(Evaluation("protein", INFOS, rows, {}, 2.6, {}))
    table = precision_table(made)
    assert table is not None and table.headers[4:6] == ("perplexity, exact", "perplexity, fp32 joint")
    (pair,) = report_json(made)["precision"]
    assert pair["exact"]["perplexity"]["value"] > pair["joint_fp32"]["perplexity"]["value"]


def test_json_depends_on_the_clock_in_timing_only(report: Report) -> None:
    slow = [replace(r, seconds=r.seconds * 3, rates=(1.0,)) if r.seconds else r for r in report.evaluation.rows]
    record = {**report.provenance, "started": "now", "config": {"seed": 0, "out": "elsewhere"}}
    later = replace(report, evaluation=replace(report.evaluation, rows=tuple(slow)), provenance=record)
    first, second = report_json(report), report_json(later)
    assert first.pop("timing") != second.pop("timing")
    assert json.dumps(first) == json.dumps(second)


def test_page_says_what_came_out(folder: Path, report: Report) -> None:
    page = (folder / "report.html").read_text()
    assert "better than the teacher at 4 and 8 steps" in page
    assert "Perplexity: under a small judge." in page
    assert re.search("repeats <span[^>]*>beats data", page)  # repeats get a lower perplexity than data
    assert page.count('<div class="panels">') == 3
    assert "python -m didi_core distill" in page


def test_pictures_take_the_pages_colours(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    pictures = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.S))
    assert "var(--series-0)" in pictures and "var(--ink)" in pictures
    assert not re.search(r"#[0-9a-f]{6}\b", pictures.replace("#ffffff", ""))


def test_page_is_the_same_every_time(folder: Path, report: Report, tmp_path: Path) -> None:
    write_report(tmp_path, report)
    assert (tmp_path / "report.html").read_text() == (folder / "report.html").read_text()


def test_markdown_has_both_tables(folder: Path) -> None:
    text = (folder / "report.md").read_text()
    assert text.startswith("# Student & teacher\n")
    assert "## Perplexity at matched entropy" in text and "plots/frontier.png" in text
    assert all(f"## {name}" in text for name in ("Cost", "Diversity"))
    tables = text.partition("## Cost")[0]
    assert "## Perplexity at matched distinct" in tables
    lines = [line for line in tables.splitlines() if line.startswith("| student | dilated")]
    assert len(lines) == 6 and {line.count("|") for line in lines} == {9}  # two numbers of steps in each table


def test_a_method_of_all_lines_is_said_once() -> None:
    table = Table("t", "About.", ("", "method", "verdict"), (("a", "iid", "x"), ("b", "iid", "y")), (0, 1, 2))
    assert table.shorter() == Table("t", "About. All lines: iid.", ("", "verdict"), (("a", "x"), ("b", "y")), (0, 1))
    several = replace(table, cells=(("a", "iid", "x"), ("b", "block", "y")))
    without = Table("t", "", ("", "steps"), (("a", "1"),))
    assert several.shorter() is several and without.shorter() is without


@pytest.mark.parametrize("width", [88, 100, 112])
def test_terminal_table_fits(report: Report, width: int) -> None:
    """With intervals if the terminal is wide enough."""
    out = io.StringIO()
    print_report(report, Console(file=out, width=width))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in out.getvalue()
    assert any("student" in line and "better" in line for line in lines)
    data = next(line for line in lines if "held-out data" in line)
    assert ("[" in data) is (width >= 112)
    assert any("repeats (beats" in line for line in lines)


def test_main_table_has_one_line_per_model_and_steps(report: Report) -> None:
    headers, cells, rows = main_table(report)
    assert headers == ["", "method", "steps", "NFE", "perplexity", "entropy", "distinct", "seconds"]
    assert all(len(line) == len(headers) for line in cells)
    keys = [(r.model, r.method) for r in rows]
    assert len(keys) == len(set(keys)) == 3 + 10 + 1


def test_report_of_files_only(tmp_path: Path) -> None:
    rows = (row(HELD_OUT, "data", 1.9, 2.6), row("peer.fasta", "file", 2.4, 2.5))
    made = build_report(Evaluation("protein", INFOS, rows, {}, 2.6, {"peer.fasta": [Sample("MK")]}))
    paths = write_report(tmp_path, made)
    assert [path.name for path in paths] == ["report.json", "report.md", "report.html"]
    figures = [f"{r.values['perplexity'].value:.3g}" for r in rows[::-1]]
    assert made.sentence == "peer.fasta: perplexity {}; held-out data: perplexity {}.".format(*figures)


def test_training_lines_cut_short_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert read_training(tmp_path) == [{"step": 1, "loss": 2.0}]
    assert read_training(tmp_path / "absent") == []


@pytest.mark.parametrize("laws", [["iid"], ["iid", "dilated"]], ids=len)
def test_the_legend_has_the_plots_markers(report: Report, laws: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of models where all have one law and grid, and of laws and grids where there are several."""
    rows = tuple(row for row in report.evaluation.rows if row.method is None or row.method.law in laws)
    monkeypatch.setattr(plots, "finish", lambda canvas, *_: canvas)
    canvas = plots.steps_plot(replace(report.evaluation, rows=rows), report.findings)
    drawn = {(line.get_marker(), line.get_color()) for line in canvas.axes[0].lines if line.get_marker() in "osD^v"}
    shown = {(line.get_marker(), line.get_color()) for line in canvas.legends[0].get_lines()}
    if len(laws) == 1:
        assert drawn == shown and len({marker for marker, _ in shown}) == 2
    else:
        assert {marker for marker, _ in drawn} == {marker for marker, _ in shown if marker} == {"o", "s"}


def test_training_plot_needs_two_points() -> None:
    assert training_plot([{"step": 1, "loss": 1.0}]) is None
    assert training_plot([]) is None


def test_templates_escape_whatever_is_put_into_them() -> None:
    from didi_core.report import page
    from didi_core.storage import markup
    from didi_protein import design_report

    folders = [Path(str(module.__file__)).parent / "templates" for module in (page, markup, design_report)]
    templates = [path for folder in folders for path in folder.glob("*.html")]
    assert len(templates) >= 8
    assert not [path for path in templates if re.search(r"\bsafe\b|autoescape", path.read_text())]
    hostile = "<script>alert(1)</script>"
    cell = page.Cell(hostile, hostile, 'red"><script>', hostile)
    shown = {"title": hostile, "about": hostile, "grid": page.Grid([hostile], [page.Line((cell,), hostile)])}
    texts = {"title": hostile, "kind": hostile, "sentence": hostile, "notes": [hostile], "record": {hostile: [hostile]}}
    assert "<script" not in page.render("runs.html", tables=[shown], **texts)
