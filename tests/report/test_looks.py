"""How reports look in a real browser, on laptop and phone, light and dark: texts that can be read, and no surprise.

``DIDI_LOOKS=keep pytest -n 0 -m browser tests/report/test_looks.py`` draws the references again, after a change that
is meant; look at the pages first.
"""

from __future__ import annotations

import os
from pathlib import Path

import chromium
import numpy as np
import pytest
from chromium import LAPTOP, PHONE
from looks import SIDE, faint, keep, kept, picture, unlike
from test_hostile_pages import PLOTTED
from test_pages_in_a_browser import crowded_page

MISSING = chromium.missing("PIL")
REFERENCES = Path(__file__).parent / "looks"
MAKERS = (crowded_page, *PLOTTED)
LOOKS = {
    f"{name}-{'dark' if dark else 'light'}": (size, dark)
    for name, size in (("laptop", LAPTOP), ("phone", PHONE))
    for dark in (False, True)
}
MOST = 0.06  # of the cells; another font, a monospaced one even, changes less on a laptop


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One page of each kind."""
    found = {}
    for make in MAKERS:
        folder = tmp_path_factory.mktemp("pages")
        found[make.__name__] = folder / "the_page.html"
        found[make.__name__].write_text(make("plain", folder), encoding="utf-8")
    return found


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.browser
@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_texts_can_be_read_and_pages_look_as_before(pages: dict[str, Path], look: str) -> None:
    size, dark = LOOKS[look]
    with chromium.chromium(size, dark, still=True) as driver:
        for name, path in pages.items():
            driver.get(path.as_uri())
            seen, reference = picture(driver), REFERENCES / f"{name}-{look}.png"
            if os.environ.get("DIDI_LOOKS") == "keep":
                keep(seen, reference)
            assert unlike(seen, kept(reference)) < MOST, f"{name} looks otherwise than {reference.name}"
            driver.execute_script("document.querySelectorAll('details').forEach(it => it.open = true)")
            assert faint(driver) == [], name


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("document.querySelectorAll('style').forEach(it => it.remove())", "without its style"),
        ("document.querySelectorAll('p.lead, .tiles').forEach(it => it.remove())", "without its key figures"),
        ("document.body.style.background = '#000'", "on another ground"),
        ("document.querySelector('main').style.marginTop = '500px'", "with a gap"),
    ],
)
@pytest.mark.browser
@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_a_broken_page_is_noticed(pages: dict[str, Path], change: str, why: str) -> None:
    with chromium.chromium(LAPTOP, still=True) as driver:
        driver.get(pages["crowded_page"].as_uri())
        before = picture(driver)
        assert unlike(before, before) == 0
        driver.execute_script(change)
        assert unlike(picture(driver), before) > MOST, why


@pytest.mark.browser
@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_faint_texts_are_found(pages: dict[str, Path]) -> None:
    with chromium.chromium(LAPTOP, still=True) as driver:
        driver.get(pages["report_page"].as_uri())
        for style in ("color: #999", "opacity: .4", "background: #888"):
            driver.execute_script(f"document.querySelector('p.lead').style = '{style}'")
            assert [text for text in faint(driver) if " P.lead " in text], style


@pytest.mark.browser
@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_letters_of_another_font_are_no_other_look(pages: dict[str, Path]) -> None:
    with chromium.chromium(LAPTOP, still=True) as driver:
        driver.get(pages["crowded_page"].as_uri())
        before = picture(driver)
        for font in ("serif", "monospace"):
            driver.execute_script(f"document.body.style.fontFamily = '{font}'")
            assert unlike(picture(driver), before) < MOST, font


def test_every_look_has_its_reference() -> None:
    wanted = {f"{make.__name__}-{look}.png" for make in MAKERS for look in LOOKS}
    assert {path.name for path in REFERENCES.glob("*.png")} == wanted
    assert sum(path.stat().st_size for path in REFERENCES.glob("*.png")) < 40_000


def test_a_picture_is_like_itself_moved_by_a_cell_and_unlike_another() -> None:
    one = np.random.default_rng(0).random((SIDE, SIDE)).repeat(4, 0).repeat(4, 1)[:SIDE, :SIDE]
    assert unlike(np.roll(one, 1, 0), one) < 0.1 and unlike(1 - one, one) > 0.5
