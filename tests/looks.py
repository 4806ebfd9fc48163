"""How a page looks: whether its texts stand out from what is behind them, and its picture in 32 by 32 grey cells.

Letters differ between machines by a pixel, so a picture is compared coarsely: each cell with the range of the reference
around it. What is found so is a page without its style, its first words or its colours, and not a moved letter.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from PIL import Image

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

SIDE = 32
# Texts whose contrast with the ground behind them is below WCAG's AA: 4.5, or 3 for large ones.
FAINT = """
const parts = text => {
  const n = (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  return n.length > 3 ? n : [...n, 1];
};
const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3]));
const light = rgb => rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = it => {
  const grounds = [];
  for (let at = it; at; at = at.parentElement) {
    const ground = parts(getComputedStyle(at).backgroundColor);
    if (ground[3] > 0) grounds.push(ground);
    if (ground[3] === 1) break;
  }
  return grounds.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
};
const found = new Set();
for (const root of document.querySelectorAll(arguments[0])) {
  const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const it = walk.currentNode.parentElement, text = walk.currentNode.textContent.trim();
    const box = it.getBoundingClientRect();
    if (!text || !box.width || !box.height || it.closest('script, style, [hidden]')) continue;
    const look = getComputedStyle(it);
    let shown = look.visibility === 'hidden' ? 0 : 1;
    for (let at = it; at; at = at.parentElement) shown *= Number(getComputedStyle(at).opacity);
    if (shown === 0) continue;
    const ground = behind(it), ink = parts(it.closest('svg') ? look.fill : look.color);
    const shade = shown * ink[3];
    const [low, high] = [light(ground), light(over([...ink.slice(0, 3), shade], ground))].sort((a, b) => a - b);
    const size = parseFloat(look.fontSize), bold = Number(look.fontWeight) >= 700;
    const wanted = size >= 24 || bold && size >= 18.66 ? 3 : 4.5, contrast = (high + 0.05) / (low + 0.05);
    const named = `${it.tagName}.${it.getAttribute('class')} ${text.slice(0, 30)}`;
    if (contrast < wanted - 0.005) found.add(`${contrast.toFixed(2)} ${named}`);
  }
}
return [...found]
"""


def faint(driver: Chrome, selector: str = "body") -> list[str]:
    """Texts below the elements of a selector that are hard to read: contrast, element and beginning of each."""
    found: list[str] = driver.execute_script(FAINT, selector)
    return found


def picture(driver: Chrome) -> Float[np.ndarray, "32 32"]:
    """What is in the window, as the mean grey of each cell, 0 to 1."""
    made: dict[str, Any] = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    shown = Image.open(io.BytesIO(base64.b64decode(made["data"]))).convert("L")
    return np.asarray(shown.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64) / 255


def unlike(found: Float[np.ndarray, "32 32"], reference: Float[np.ndarray, "32 32"], around: int = 1) -> float:
    """Share of the cells that leave the range of the reference's cells around them by more than 0.03."""
    padded = np.pad(reference, around, mode="edge")
    near = np.stack([padded[i : i + SIDE, j : j + SIDE] for i in range(2 * around + 1) for j in range(2 * around + 1)])
    beyond = np.maximum(found - near.max(0), near.min(0) - found)
    return float((beyond > 0.03).mean())


def kept(path: Path) -> Float[np.ndarray, "32 32"]:
    """A reference."""
    return np.asarray(Image.open(path).convert("L"), dtype=np.float64) / 255


def keep(found: Float[np.ndarray, "32 32"], path: Path) -> None:
    """Write a reference."""
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.rint(255 * found).astype(np.uint8)).save(path, optimize=True)
