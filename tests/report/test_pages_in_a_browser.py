"""Report pages in a real browser: the film runs, and everything fits a laptop and a phone, light and dark."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import chromium
import numpy as np
import pytest
from chromium import LAPTOP, PHONE, texts, wait_for
from plain_metrics import Number, Ratio
from test_hostile_pages import PLOTTED, designs_page, evaluation

from didi_core.evaluation.frontier import SweepPoint, frontier
from didi_core.evaluation.intervals import Interval
from didi_core.evaluation.rows import HELD_OUT, Evaluation, Film, Films, Method, MetricInfo, Row
from didi_core.report.plots import evaluation_plots
from didi_core.report.record import build_report
from didi_core.report.to_html import html
from didi_core.types import NFE, Sample

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

MISSING = chromium.missing()
pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(MISSING), reason=MISSING)]
START = ("", "A", None, None, None, "")
FILM = Films(
    2,
    (
        Film("teacher", START, (((2, "B"),), ((3, "C"), (4, "<b>")))),
        Film("student", START, (((2, "C"), (3, "D")), ((2, None), (4, "E")))),
    ),
    {"vowels": ("A", "E"), "others": ("B", "C", "D")},
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of a report with a film."""
    made = build_report(replace(evaluation("plain"), films=FILM), title="A report", baseline="plain teacher")
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html(made, evaluation_plots(made.evaluation, made.findings)), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def still(page: str) -> Iterator[Chrome]:
    """A browser that prefers less motion."""
    with chromium.chromium(still=True) as driver:
        yield driver


def reels(driver: Chrome) -> list[str]:
    return texts(driver, ".film .reel")


def press(driver: Chrome, name: str) -> None:
    driver.find_element("css selector", f".film .{name}").click()


def test_a_film_stands_still_where_less_motion_is_preferred_and_goes_step_by_step(still: Chrome, page: str) -> None:
    still.get(page)
    time.sleep(1.2)
    assert reels(still) == ["ABC<b>", "A·DE"] and texts(still, ".film output") == ["call 2 of 2"]
    press(still, "back")
    assert reels(still) == ["AB··", "ACD·"]
    assert texts(still, ".film .new") == ["B", "C", "D"] and texts(still, ".film .given") == ["A", "A"]
    press(still, "back")
    press(still, "back")
    assert reels(still) == ["A···", "A···"] and texts(still, ".film .new") == []
    press(still, "on")
    assert texts(still, ".film output") == ["call 1 of 2"]
    still.execute_script(
        "const it = document.querySelector('.film input'); it.value = 2; it.dispatchEvent(new Event('input'))"
    )
    assert reels(still) == ["ABC<b>", "A·DE"] and not chromium.errors(still)
    vowel = still.find_element("css selector", ".film .g0")
    assert vowel.value_of_css_property("background-color").startswith("rgba(240, 228, 66")


def test_a_film_runs_pauses_and_ends(still: Chrome, page: str) -> None:
    still.get(page)
    press(still, "run")
    assert texts(still, ".film output") == ["call 0 of 2"] and texts(still, ".film .run") == ["Pause"]
    wait_for(lambda: texts(still, ".film output") == ["call 1 of 2"])
    press(still, "run")
    time.sleep(1.2)
    assert texts(still, ".film output") == ["call 1 of 2"] and texts(still, ".film .run") == ["Play"]
    press(still, "run")
    wait_for(lambda: texts(still, ".film .run") == ["Play"])
    assert texts(still, ".film output") == ["call 2 of 2"]


def test_a_film_begins_by_itself_when_it_is_seen(page: str) -> None:
    with chromium.chromium() as driver:
        driver.get(page)
        driver.execute_script("document.querySelector('.film').scrollIntoView()")
        wait_for(lambda: texts(driver, ".film output") == ["call 1 of 2"])
        wait_for(lambda: texts(driver, ".film output") == ["call 2 of 2"])


def test_without_scripts_the_samples_are_there(page: str) -> None:
    text = Path(page.removeprefix("file://")).read_text()
    assert '<p class="reel" data-model="teacher">ABC&lt;b&gt;</p>' in text
    assert "http" not in text[text.index('<section class="film">') : text.index("</section>")]


# What lies outside the page, with nothing around it that scrolls; and texts of a picture that lie on each other.
OUTSIDE = """
return [...document.querySelectorAll('body *')].filter(it => {
  if (it.closest('svg') && it.tagName !== 'svg' || it.parentElement.closest('.wide')) return false;
  const {left, right, width} = it.getBoundingClientRect();
  return width > 0 && (right > innerWidth + 1 || left < -1);
}).map(it => it.tagName + '.' + it.className)
"""
CROWDED = """
const found = [];
for (const panels of document.querySelectorAll('.panels')) {
  const texts = [...panels.querySelectorAll('text')].filter(it => it.textContent.trim());
  const boxes = texts.map(it => it.getBoundingClientRect());
  texts.forEach((one, i) => texts.slice(0, i).forEach((other, j) => {
    const across = Math.min(boxes[i].right, boxes[j].right) - Math.max(boxes[i].left, boxes[j].left);
    const down = Math.min(boxes[i].bottom, boxes[j].bottom) - Math.max(boxes[i].top, boxes[j].top);
    if (across > 1 && down > 0.25 * Math.min(boxes[i].height, boxes[j].height))
      found.push(one.textContent + ' / ' + other.textContent);
  }));
}
return found
"""
HEIGHTS = "return [...document.querySelectorAll('.panels text')].map(it => it.getBoundingClientRect().height)"
LOOKS = [(size, dark) for size in (LAPTOP, PHONE) for dark in (False, True)]


def crowded() -> Evaluation:
    """Three models at six numbers of steps whose frontiers nearly end at one place, under two long laws."""
    quality, entropy = Ratio(), Number(name="entropy", label="entropy", better="neither")
    infos = (MetricInfo("perplexity", "perplexity", "lower"), MetricInfo("entropy", "entropy", "neither"))
    own = {"perplexity": Interval(8.0, 7.0, 9.0, 20), "entropy": Interval(2.5, 2.4, 2.6, 20)}
    rows, frontiers = [Row(HELD_OUT, "data", 20, own)], {}
    for number, model in enumerate(("teacher", "student", "a student with quite a long name")):
        for law, k in itertools.product(("stratified", "threshold probability=0.85 block=32"), (1, 2, 4, 8, 16, 32)):
            method, points = Method("ancestral", law, "uniform", k), []
            for t in (0.8, 1.0, 1.2):
                logs, random = 1.5 + 0.6 * t + 0.8 / k - 0.05 * number, np.random.default_rng(number)
                sums = np.stack([50 * (logs + 0.01 * random.standard_normal(20)), np.full(20, 50.0)], axis=1)
                points.append(SweepPoint(t, sums, (1.5 + t + 0.3 / k + 0.01 * random.standard_normal(20))[:, None]))
                value = float(np.exp(logs))
                values = {**own, "perplexity": Interval(value, value - 0.4, value + 0.4, 20)}
                rows.append(Row(model, "model", 20, values, method, t, nfe=NFE(k), seconds=1.0))
            frontiers[model, method] = frontier(quality, entropy, points, resamples=20)
    return Evaluation("toy", infos, tuple(rows), frontiers, 2.5, {"set": [Sample("a" * 300)]}, films=FILM)


def crowded_page(word: str, folder: Path) -> str:
    made = build_report(crowded(), title=word, provenance={word: "x" * 200, "config": {word: ["y" * 200]}})
    return html(made, evaluation_plots(made.evaluation, made.findings))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Addresses of one page of each kind."""
    found = {}
    for make in (crowded_page, *PLOTTED):
        folder = tmp_path_factory.mktemp("pages")
        path = folder / "the_page.html"
        path.write_text(make("plain", folder), encoding="utf-8")
        found[make.__name__] = path.as_uri()
    folder = tmp_path_factory.mktemp("pages")
    path = folder / "the_page.html"
    path.write_text(designs_page("2026-11-27_TEM1_scaffold_round3_design_0001_variant_b", folder), encoding="utf-8")
    found["designs with long names"] = path.as_uri()
    return found


@pytest.mark.parametrize(("size", "dark"), LOOKS, ids=["laptop", "laptop-dark", "phone", "phone-dark"])
def test_every_page_fits(pages: dict[str, str], size: tuple[int, int], dark: bool) -> None:
    """Nothing is wider than the screen but tables that scroll by themselves; no text of a picture covers another."""
    with chromium.chromium(size, dark, still=True) as driver:
        for name, address in pages.items():
            driver.get(address)
            driver.execute_script("document.querySelectorAll('details').forEach(it => it.open = true)")
            assert driver.execute_script("return document.documentElement.scrollWidth") <= size[0], name
            assert driver.execute_script(OUTSIDE) == [], name
            assert driver.execute_script(CROWDED) == [], name
            heights = driver.execute_script(HEIGHTS)
            assert min(heights, default=99) > 9, (name, "letters that cannot be read")
            back = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", back)[:3])) < 200) is dark, name
            assert not chromium.errors(driver), name


def test_a_table_that_is_too_wide_scrolls_and_keeps_its_names(pages: dict[str, str]) -> None:
    with chromium.chromium(PHONE) as driver:
        driver.get(pages["crowded_page"])
        table = driver.find_element("css selector", ".wide")
        assert driver.execute_script("return arguments[0].scrollWidth > arguments[0].clientWidth + 50", table)
        driver.execute_script("arguments[0].scrollLeft = 9999", table)
        name, last = (table.find_element("css selector", f"tbody tr {it}").rect for it in ("td", "td:last-child"))
        assert name["x"] >= 0 and last["x"] + last["width"] <= PHONE[0]
        assert "linear-gradient" in table.value_of_css_property("background-image"), "a shadow shows that there is more"


def test_panels_stand_side_by_side_on_a_laptop_and_below_each_other_on_a_phone(pages: dict[str, str]) -> None:
    for size, side_by_side in ((LAPTOP, True), (PHONE, False)):
        with chromium.chromium(size) as driver:
            driver.get(pages["crowded_page"])
            first, second, legend = (it.rect for it in driver.find_elements("css selector", ".panels svg")[:3])
            assert (first["y"] == second["y"]) is side_by_side and (first["x"] == second["x"]) is not side_by_side
            assert legend["y"] >= second["y"] + second["height"] - 1
