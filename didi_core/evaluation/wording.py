"""Numbers and lists as a report writes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from didi_core.evaluation.intervals import Interval


def figure(value: float | None, digits: int = 3) -> str:
    """A number with about three digits; an exponent only where the plain form would be unreadable."""
    if value is None or np.isnan(value):
        return "–"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-4:
        return f"{value:.2e}"
    places = max(digits - 1 - int(np.floor(np.log10(size))), 0)
    return f"{value:,.{places}f}"


def headed(text: str) -> str:
    """The text with a capital first letter; other capitals stay."""
    return text[:1].upper() + text[1:]


def change(ratio: Interval) -> str:
    """A ratio as a percentage with its interval: ``-24 % [-27, -20]``."""
    low, value, high = (100 * (x - 1) for x in (ratio.low, ratio.value, ratio.high))
    return f"{value:+.1f} % [{low:+.1f}, {high:+.1f}]".replace("-", "−")


def signed(difference: Interval) -> str:
    """A difference with its interval: ``+0.214 [+0.175, +0.251]``."""
    value, low, high = (f"{x:+.3f}" for x in (difference.value, difference.low, difference.high))
    return f"{value} [{low}, {high}]".replace("-", "−")


def listed(numbers: Sequence[int | str]) -> str:
    words = [str(number) for number in numbers]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
