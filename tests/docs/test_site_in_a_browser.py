"""The built site in a real browser, laptop and phone, light and dark: pages fit, pictures load, texts can be read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import chromium
import pytest
from chromium import LAPTOP, PHONE, wait_for
from looks import faint

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

ROOT = Path(__file__).resolve().parents[2]
MISSING = chromium.missing("PIL", "material", "mkdocstrings")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(MISSING), reason=MISSING)]
PAGES = ("index", "start", "choose", "recipe", "objectives")
LOOKS = {
    f"{name}-{'dark' if dark else 'light'}": (size, dark)
    for name, size in (("laptop", LAPTOP), ("phone", PHONE))
    for dark in (False, True)
}
# The theme's script puts each table into an element that scrolls.
SETTLED = (
    "return [...document.querySelectorAll('article table')].every(it => it.closest('.md-typeset__scrollwrap, pre'))"
)
# What of the page's text lies outside the window, with nothing around it that scrolls.
OUTSIDE = """
const held = it => {
  for (let at = it.parentElement; at && at.tagName !== 'ARTICLE'; at = at.parentElement)
    if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(at).overflowX)) return true;
  return false;
};
return [...document.querySelectorAll('article *')].filter(it => {
  const {left, right, width} = it.getBoundingClientRect();
  return width > 0 && (right > document.documentElement.clientWidth + 1 || left < -1) && !held(it);
}).map(it => `${it.tagName} ${it.textContent.trim().slice(0, 30)}`)
"""
WIDTH = "return document.documentElement.scrollWidth"
UNLOADED = "return [...document.images].filter(it => !it.complete || !it.naturalWidth).map(it => it.src)"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def open_page(driver: Chrome, path: Path) -> None:
    """Load a page, pictures further down included."""
    driver.get(path.as_uri())
    driver.execute_script("document.querySelectorAll('img').forEach(it => it.loading = 'eager')")
    driver.execute_script("document.querySelectorAll('article details').forEach(it => it.open = true)")
    wait_for(lambda: driver.execute_script(SETTLED))
    wait_for(lambda: driver.execute_script("return [...document.images].every(it => it.complete)"))


@pytest.mark.parametrize("look", LOOKS)
def test_pages_fit_their_pictures_load_and_their_texts_can_be_read(site: Path, look: str) -> None:
    size, dark = LOOKS[look]
    with chromium.chromium(size, dark, still=True) as driver:
        for name in PAGES:
            open_page(driver, site / f"{name}.html")
            back = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", back)[:3])) < 200) is dark, name
            assert driver.execute_script(WIDTH) <= size[0], name
            assert driver.execute_script(OUTSIDE) == [], name
            assert driver.execute_script(UNLOADED) == [], name
            assert faint(driver) == [], name


def test_what_is_wrong_with_a_page_is_found(site: Path) -> None:
    with chromium.chromium(PHONE, still=True) as driver:
        open_page(driver, site / "index.html")
        driver.execute_script(
            "document.querySelector('article').insertAdjacentHTML('beforeend', "
            "'<p style=\"width: 900px\">wide</p><p style=\"color: #aaa\">pale</p><img src=\"absent.png\">')"
        )
        wait_for(lambda: driver.execute_script("return [...document.images].every(it => it.complete)"))
        assert driver.execute_script(WIDTH) > PHONE[0]
        assert [text for text in driver.execute_script(OUTSIDE) if text.endswith(" wide")]
        assert [text for text in faint(driver) if text.endswith(" pale")]
        assert [address for address in driver.execute_script(UNLOADED) if address.endswith("absent.png")]
