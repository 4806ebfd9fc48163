"""Takes the picture of a report's head for the README: ``python docs/site/head.py <run directory>``.

Needs Chromium, its driver, Selenium and Pillow (the extra ``browser``).
"""

from __future__ import annotations

import base64
import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

PICTURE = Path(__file__).parents[1] / "images" / "report.png"
WIDTH, HEIGHT, EDGE = 1120, 1000, 9  # pixels
COLOURS = 128
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
END = "return document.querySelector('figure').getBoundingClientRect().bottom + scrollY"


def head_of(page: Path) -> Image.Image:
    """The page from its top to the end of its first figure."""
    options = webdriver.ChromeOptions()
    for option in OPTIONS:
        options.add_argument(option)
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))  # none is looked for elsewhere
    try:
        size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get(page.resolve().as_uri())
        end = driver.execute_script(END)
        clip = {"x": EDGE, "y": 2 * EDGE, "width": WIDTH - 2 * EDGE, "height": end - EDGE, "scale": 1}
        taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        return Image.open(io.BytesIO(base64.b64decode(taken["data"]))).convert("RGB")
    finally:
        driver.quit()


if __name__ == "__main__":
    made = head_of(Path(sys.argv[1]) / "report.html").quantize(COLOURS, dither=Image.Dither.NONE)
    made.save(PICTURE, optimize=True)
