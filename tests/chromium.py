"""A real browser for the tests of pages: the system's Chromium without a window, driven by Selenium."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

T = TypeVar("T")
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
LAPTOP, PHONE = (1280, 900), (390, 844)


def missing(*modules: str) -> str:
    """What the tests lack on this machine, in words; '' if they can run."""
    absent = [name for name in ("selenium", *modules) if importlib.util.find_spec(name) is None]
    absent += [] if any(map(shutil.which, PROGRAMS)) else ["chromium"]
    absent += [] if shutil.which("chromedriver") else ["chromedriver"]
    return f"not installed: {', '.join(absent)}" if absent else ""


@contextmanager
def chromium(size: tuple[int, int] = LAPTOP, dark: bool = False, still: bool = False) -> Iterator[Chrome]:
    """A fresh browser with a page of that size in CSS pixels.

    Args:
        dark: it prefers dark colours. still: it prefers less motion.
    """
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, PROGRAMS)))
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
        try:
            resize(driver, size)
            wishes = [("prefers-color-scheme", "dark" if dark else "light")]
            wishes += [("prefers-reduced-motion", "reduce")] if still else []
            features = [{"name": name, "value": value} for name, value in wishes]
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            yield driver
        finally:
            driver.quit()


def resize(driver: Chrome, size: tuple[int, int]) -> None:
    """Another size of the page; a narrow one is that of a phone."""
    width, height = size
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


def wait_for(found: Callable[[], T], seconds: float = 30) -> T:
    """The first true value of a function that is asked again and again."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
    return value


def texts(driver: Chrome, selector: str) -> list[str]:
    """The texts of the elements of a selector; those that vanish meanwhile are left out."""
    script = "return [...document.querySelectorAll(arguments[0])].map(it => it.innerText)"
    found: list[str] = driver.execute_script(script, selector)
    return found


def errors(driver: Chrome) -> list[Any]:
    """What the page's scripts complained about."""
    return [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
