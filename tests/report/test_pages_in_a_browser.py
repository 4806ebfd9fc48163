"""Report pages in a real browser: the film runs, and everything fits a laptop and a phone, light and dark."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import chromium
import pytest
from chromium import texts, wait_for
from test_hostile_pages import evaluation

from didi_core.evaluation.rows import Film, Films
from didi_core.report.plots import evaluation_plots
from didi_core.report.record import build_report
from didi_core.report.to_html import html

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
