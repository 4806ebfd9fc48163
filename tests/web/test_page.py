"""The page of ``demo`` in a real browser: it shows every call, survives its visitors, and fits a phone."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import chromium
import pytest
import torch
from chromium import PHONE, resize, texts, wait_for
from looks import faint

from didi_core.device import Machine
from didi_core.web.drawing import Asked, Limits, watch
from didi_core.web.models import BUNDLED, Shelf
from didi_core.web.page import Offer, build_page, serve

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

MISSING = chromium.missing("gradio")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(MISSING), reason=MISSING)]
ATTACK = "<img src=x onerror=document.title='attacked'>"


@dataclass
class Served:
    """A page that is served, and the network on its toy tab."""

    address: str
    shelf: Shelf

    @property
    def network(self) -> torch.nn.Module:
        return self.shelf.find("toy", BUNDLED).first


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shelf = Shelf(Machine(torch.device("cpu"), "fp32"))
    page = build_page(Offer(shelf, {"toy": (BUNDLED,), "protein": (BUNDLED,)}, Limits(100, 4, 200)))
    yield Served(serve(page, "127.0.0.1", port, forever=False), shelf)
    page.close(verbose=False)


@pytest.fixture(scope="module")
def browser(served: Served) -> Iterator[Chrome]:
    with chromium.chromium() as driver:
        yield driver


def visit(driver: Chrome, served: Served, **numbers: int | float) -> None:
    """Open the page on its toy tab and fill in its numbers."""
    driver.get(served.address)
    wait_for(lambda: texts(driver, "#toy-draw"))
    fill(driver, "pace", 0)
    for name, value in numbers.items():
        fill(driver, name, value)


def fill(driver: Chrome, name: str, value: object) -> None:
    """Type a value in place of what is there."""
    box = driver.find_element("css selector", f"#toy-{name} input, #toy-{name} textarea")
    driver.execute_script("arguments[0].select()", box)
    box.send_keys(str(value) + "\t")


def press(driver: Chrome, name: str) -> None:
    driver.find_element("css selector", f"#toy-{name}").click()


def test_both_models_fill_their_sequences_call_by_call(browser: Chrome, served: Served) -> None:
    visit(browser, served, calls=3, more=5, pace=0.6, seed=0)
    press(browser, "draw")
    seen: list[str] = []

    def ended() -> bool:
        seen.extend(text for text in texts(browser, "#toy-first p") if text[:1] not in (seen[-1:] or [""])[0][:1])
        return bool(texts(browser, "#toy-file a"))

    wait_for(ended)
    assert [text.split(",")[0] for text in seen] == ["0 of 3 calls", "1 of 3 calls", "2 of 3 calls", "3 calls"]
    *_, last = watch(served.shelf, "toy", BUNDLED, Asked(calls=3, more_calls=5), Limits())
    shown = [texts(browser, f"#toy-{side} .didi-text")[0] for side in ("first", "second")]
    assert shown == [side[0].text for side in last.samples]
    assert "perplexity" in texts(browser, "#toy-scores")[0] or "NLL" in texts(browser, "#toy-scores")[0]
    assert not chromium.errors(browser) and "fonts.googleapis" not in browser.page_source


def test_a_thousand_samples_and_markup_are_answered_in_words(browser: Chrome, served: Served) -> None:
    visit(browser, served, num=1000)
    press(browser, "draw")
    wait_for(lambda: "samples=1000 is out of range: this page takes 1 to 4" in "".join(texts(browser, "#toy-message")))
    fill(browser, "num", 1)
    fill(browser, "model", ATTACK)
    press(browser, "draw")
    wait_for(lambda: ATTACK in "".join(texts(browser, "#toy-message")))
    assert browser.title == "didi_core" and not browser.find_elements("css selector", "#toy-message img")


def test_sampling_stops_when_the_visitor_goes_away(
    browser: Chrome, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted(served, monkeypatch)
    visit(browser, served, calls=200, more=200, pace=0.1, num=1)
    press(browser, "draw")
    wait_for(lambda: len(calls) > 4)
    browser.get("about:blank")

    def is_still() -> bool:
        before = len(calls)
        time.sleep(1)
        return len(calls) == before

    wait_for(is_still)
    assert len(calls) < 300


def test_the_visitor_can_stop_it(browser: Chrome, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(served, monkeypatch)
    visit(browser, served, calls=200, more=200, pace=0.1)
    press(browser, "draw")
    wait_for(lambda: len(calls) > 4)
    press(browser, "stop")
    time.sleep(0.5)
    seen = len(calls)
    time.sleep(0.5)
    assert len(calls) == seen < 300


def test_two_visitors_draw_at_once(browser: Chrome, served: Served) -> None:
    with chromium.chromium() as other:
        visitors = {1: browser, 2: other}
        for seed, driver in visitors.items():
            visit(driver, served, calls=8, more=8, pace=0.2, seed=seed)
        for driver in visitors.values():
            press(driver, "draw")
        for seed, driver in visitors.items():
            wait_for(lambda driver=driver: texts(driver, "#toy-file a"))
            *_, last = watch(served.shelf, "toy", BUNDLED, Asked(calls=8, more_calls=8, seed=seed), Limits())
            assert texts(driver, "#toy-first .didi-text") == [last.samples[0][0].text]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_fits_a_phone(served: Served, dark: bool) -> None:
    with chromium.chromium(PHONE, dark) as driver:
        visit(driver, served, num=2, calls=2, more=2)
        press(driver, "draw")
        wait_for(lambda: texts(driver, "#toy-file a"))
        first, second = (driver.find_element("css selector", f"#toy-{side}").rect for side in ("first", "second"))
        assert first["y"] + first["height"] <= second["y"], "one under the other"
        assert driver.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]
        assert faint(driver) == []
        resize(driver, chromium.LAPTOP)
        first, second = (driver.find_element("css selector", f"#toy-{side}").rect for side in ("first", "second"))
        assert first["y"] == second["y"], "side by side"


def counted(served: Served, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with every call of the network."""
    calls: list[int] = []
    network, trunk = served.network, served.network.trunk
    monkeypatch.setattr(network, "trunk", lambda tokens: calls.append(1) or trunk(tokens))
    return calls
