"""Whatever stands in names, sequences, paths and error texts: on a page it is text, and makes no element."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from plain_metrics import Number, Ratio
from score_folder import score_folder
from test_run_reports import write as write_run

from didi_core.cli import main
from didi_core.domain.scoring import Scored
from didi_core.evaluation.frontier import SweepPoint, frontier
from didi_core.evaluation.intervals import Interval
from didi_core.evaluation.rows import HELD_OUT, Evaluation, Film, Films, Method, MetricInfo, Row
from didi_core.report.plots import evaluation_plots
from didi_core.report.pretraining import write_pretraining
from didi_core.report.record import build_report
from didi_core.report.to_html import html
from didi_core.report.to_markdown import markdown
from didi_core.sampling.generate import Generated
from didi_core.storage.frame import html_frame
from didi_core.types import NFE, Sample
from didi_protein.design_report import write_design_report
from didi_protein.design_report.cartoon import Shown, cartoon_page
from didi_protein.design_report.designs import structure_name
from didi_protein.fasta import without_breaks

INNOCENT = "plain"
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</style></title></pre></textarea><img src=x onerror=alert(1)>",
    "\"' onmouseover=alert(1) x=\"'><svg/onload=alert(1)>",
    "{{7*7}}{% raw %}${7*7}<!--",
    "]]></svg><a href=javascript:alert(1)>",
    "\u2028\u2029</script>\u202e\ufeff&lt;b&gt;",
    ' version="1 <metadata> $\\frac$ $x$',
    "\x08\x1b[31m\uffff",
    "#1f2430 \\u003cscript\\u003e",
]


@dataclass
class Page(HTMLParser):
    """What a browser makes of a page: its elements with the names of their attributes, its text, its data."""

    text: str
    elements: Counter[tuple[str, ...]] = field(default_factory=Counter)
    said: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    inside: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag, *sorted(name for name, _ in attrs)] += 1
        self.said += [value for _, value in attrs if value]
        self.inside = "json" if ("type", "application/json") in attrs else tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_comment(self, data: str) -> None:
        self.elements["comment",] += 1

    def handle_data(self, data: str) -> None:
        (self.data if self.inside == "json" else self.said).append(data)


def evaluation(word: str) -> Evaluation:
    """A small comparison in which every text is ``word``, with something after it to keep two of them apart."""
    quality, entropy = Ratio(), Number(name="entropy", label=f"{word} entropy", better="neither")
    infos = (MetricInfo("perplexity", f"{word} quality", "lower", word), MetricInfo("entropy", f"{word} e", "neither"))
    rows, frontiers, method = [], {}, Method(f"{word} s", f"{word} l", f"{word} g", 4)
    for number, model in enumerate((f"{word} teacher", f"{word} student")):
        points = []
        for t in (0.8, 1.2):
            logs, random = 1.5 + t - 0.4 * number, np.random.default_rng(number)
            own = np.stack([50 * (logs + 0.01 * random.standard_normal(20)), np.full(20, 50.0)], axis=1)
            points.append(SweepPoint(t, own, (1.5 + t + 0.01 * random.standard_normal(20))[:, None]))
            values = {"perplexity": Interval(8.0, 7.0, 9.0, 20), "entropy": Interval(2.5, 2.4, 2.6, 20)}
            rows.append(Row(model, "model", 20, values, method, t, nfe=NFE(4.0), seconds=1.0, skipped={"x": word}))
        frontiers[model, method] = frontier(quality, entropy, points, resamples=20)
    rows[:0] = [Row(HELD_OUT, "data", 20, values), Row(f"{word} worse", "control", 20, values)]
    examples = {f"{word} set": [Sample(word, word), Sample(f"{word}\n# {word}\n{word}")]}
    film = Film(f"{word} student", (None, word), (((0, word),), ((0, None),)))
    films = Films(2, (film, film), {f"{word} group": (word, "A")})
    return Evaluation(f"{word} domain", infos, tuple(rows), frontiers, 2.5, examples, notes=(word,), films=films)


def report_page(word: str, folder: Path) -> str:
    record = {"command": word, word: word, "config": {word: [word]}}
    made = build_report(evaluation(word), title=word, baseline=f"{word} teacher", provenance=record)
    return html(made, evaluation_plots(made.evaluation, made.findings))


def pretraining_page(word: str, folder: Path) -> str:
    lines = [{"step": i, "loss": 3 / i, "validation_loss": 3 / i} for i in range(1, 5)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return write_pretraining(folder, word, {5: 0.6}, {"config": {"data": {"path": word}}, word: word}).read_text()


def runs_page(word: str, folder: Path) -> str:
    for name in "ab":
        path = write_run(folder / name) / "report.json"
        text = path.read_text().replace('"student"', json.dumps(f"{word} student"))
        text = text.replace("iid", json.dumps(word)[1:-1])
        report = json.loads(text)
        report["provenance"]["git_commit"] = report["domain"] = word
        report["metrics"][0]["label"] = word
        path.write_text(json.dumps(report))
    assert main(["report", "compare", str(folder / "a"), str(folder / "b"), f"out={folder / 'out'}"]) == 0
    return (folder / "out/runs.html").read_text()


def ablation_page(word: str, folder: Path) -> str:
    for name in "ab":
        path = write_run(folder / name, word) / "report.json"
        report = json.loads(path.read_text())
        report["domain"] = report["metrics"][0]["label"] = report["metrics"][2]["label"] = word
        path.write_text(json.dumps(report))
    assert main(["report", "ablation", str(folder), f"out={folder / 'out'}"]) == 0
    return (folder / "out/runs.html").read_text()


def designs_page(word: str, folder: Path) -> str:
    rows = [json.loads(line) for line in (score_folder(folder, 3) / "scores.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        old, row["id"] = row["id"], f"{word} {number}"
        (folder / "pdb" / f"{old}.pdb").rename(folder / "pdb" / structure_name(row["id"]))
        row |= {key: f"{word} {key}" for key in ("contig", "parent", "status", "folded_by")}
        row |= {"model": f"{word} {number % 2}", f"{word}_plddt": 50.0}
        row["sequence"] = word[:40] + row["sequence"][len(without_breaks(word[:40])) :]
    rows.append({"id": word, "sequence": word, "status": word})
    (folder / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return write_design_report(folder, {"command": word, "nested": {word: [word]}}).read_text()


def cartoons_page(word: str, folder: Path) -> str:
    return cartoon_page([Shown(word, word, ((1, 2),), 0), Shown(f"{word} b", word)], [word])


def notebook_scores(word: str, folder: Path) -> str:
    return Scored(folder, [{"id": word, word: word}])._repr_html_()


def notebook_samples(word: str, folder: Path) -> str:
    return Generated([Sample(word, word)] * 12, NFE(1.0), 1.0)._repr_html_()


def notebook_page(word: str, folder: Path) -> str:
    (folder / "report.html").write_text(word, encoding="utf-8", errors="replace")
    return html_frame(folder)


def notebook_path(word: str, folder: Path) -> str:
    return html_frame(folder / word)


PLOTTED = (report_page, pretraining_page, runs_page, ablation_page, designs_page)  # they take longer
PAGES: list[Callable[[str, Path], str]] = [
    *PLOTTED, cartoons_page, notebook_scores, notebook_samples, notebook_page, notebook_path
]  # fmt: skip
TOGETHER = ["".join(HOSTILE[0::2]), "".join(HOSTILE[1::2])]
CASES = [
    pytest.param(make, word, id=f"{make.__name__}-{number}")
    for make in PAGES
    for number, word in enumerate(TOGETHER if make in PLOTTED else HOSTILE)
]
# What pictures are drawn with; their layout follows the widths of texts.
DRAWN = {"g", "path", "use", "text", "defs", "clippath", "rect"}
PENS = {"clip-path", "d", "height", "href", "id", "style", "transform", "width", "x", "y"}


def counted(page: Page) -> Counter[tuple[str, ...]]:
    """How often each element is there, without what pictures are drawn with."""
    drawn = {key for key in page.elements if key[0] in DRAWN and {*key[1:]} <= PENS}
    return Counter({key: number for key, number in page.elements.items() if key not in drawn})


@pytest.fixture(scope="module", autouse=True)
def no_png() -> Iterator[None]:
    """Pictures are drawn for the page only."""
    save = Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda self, to, **how: how["format"] == "svg" and save(self, to, **how))
        yield


@pytest.fixture(scope="module")
def innocent(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Counter[tuple[str, ...]]]:
    return {make.__name__: counted(Page(make(INNOCENT, tmp_path_factory.mktemp("page")))) for make in PAGES}


@pytest.mark.parametrize(("make", "word"), CASES)
def test_no_element_comes_from_data(
    make: Callable[[str, Path], str], word: str, innocent: dict[str, Counter[tuple[str, ...]]], tmp_path: Path
) -> None:
    page = Page(make(word, tmp_path))
    assert counted(page) == innocent[make.__name__]
    data = json.dumps([json.loads(each) for each in page.data])
    assert word in "".join(page.said) or json.dumps(word)[1:-1] in data, "the text itself is there"


@pytest.mark.parametrize("word", HOSTILE, ids=range(len(HOSTILE)))
def test_data_in_a_script_is_data(word: str, tmp_path: Path) -> None:
    found = json.loads("".join(Page(cartoons_page(word, tmp_path)).data))
    assert found["designs"][0] == {"name": word, "pdb": word, "motif": [[1, 2]], "reference": 0}


@pytest.mark.parametrize("word", TOGETHER, ids="01")
def test_data_of_the_viewer_is_data(word: str, tmp_path: Path) -> None:
    names = [shown["name"] for shown in json.loads("".join(Page(designs_page(word, tmp_path)).data))]
    assert sorted(names) == [f"{word} {number}" for number in range(3)]


@pytest.mark.parametrize("make", [report_page, notebook_scores, notebook_samples, notebook_path])
def test_half_a_character_or_none_breaks_no_page(make: Callable[[str, Path], str], tmp_path: Path) -> None:
    assert "\ufffd" in make("a\ud800\0b", tmp_path).encode().decode()


@pytest.mark.parametrize("word", HOSTILE, ids=range(len(HOSTILE)))
def test_markdown_has_no_element_either(word: str) -> None:
    made = build_report(evaluation(word), title=word, baseline=f"{word} teacher")
    lines = markdown(made, []).split("\n")
    assert not [line for line in lines if not line.startswith("    ") and "<" in line.replace("\\<", "")]
    assert len([line for line in lines if line.startswith("# ")]) == 1
