"""Colours of pages: apart for every kind of colour vision, and texts dark or light enough to be read."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from jaxtyping import Float

from didi_core.domain.palette import GROUP_COLOURS
from didi_core.report.page import DARK, _colours
from didi_core.report.pictures import MARKERS, SERIES

# Machado, Oliveira and Fernandes 2009, severity 1: what linear RGB becomes for eyes without one kind of cones.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]])
PALETTES = {
    "light": SERIES,
    "dark": tuple(DARK[f"series-{i}"] for i in range(len(SERIES))),
    "letters": tuple(back for back, _ in GROUP_COLOURS),
}


def linear(colour: str) -> Float[np.ndarray, "3"]:
    """Linear RGB of #rgb or #rrggbb."""
    digits = colour[1:] if len(colour) > 4 else "".join(2 * digit for digit in colour[1:])
    share = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def lab(rgb: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    """CIE L*a*b* of linear RGB, in which a difference of some 2 can just be seen."""
    x = XYZ @ np.clip(rgb, 0, 1) / np.array([0.95047, 1, 1.08883])
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: str, other: str) -> float:
    """WCAG's contrast of two colours, 1 to 21."""
    light, dark = sorted((float(XYZ[1] @ linear(colour)) for colour in (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("palette", PALETTES)
def test_colours_are_distinct_whatever_the_eyes(palette: str, vision: str) -> None:
    seen = {colour: lab(np.array(VISION[vision]) @ linear(colour)) for colour in PALETTES[palette]}
    apart = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in itertools.combinations(seen, 2)}
    assert min(apart.values()) > 12, min(apart, key=lambda pair: apart[pair])


def test_markers_say_what_colours_say() -> None:
    assert len(MARKERS) == len(SERIES) == len(set(MARKERS))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_texts_can_be_read(scheme: int) -> None:
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})\b", _colours().split("@media")[scheme]))
    for text in ("ink", "muted", "good", "bad"):
        assert min(contrast(colours[text], colours[ground]) for ground in ("page", "card")) > 4.5, text
    assert all(contrast(back, ink) > 4.5 for back, ink in GROUP_COLOURS)
