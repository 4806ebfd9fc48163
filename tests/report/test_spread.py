"""Places of labels: far enough from each other, and no further from their curves than that takes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from didi_core.report.plots import End, _end_labels, spread

PLACES = st.lists(st.floats(-100, 100), min_size=1, max_size=12).map(lambda found: np.sort(np.array(found)))


@given(PLACES)
def test_labels_keep_their_distance_and_their_order(places: np.ndarray) -> None:
    assert np.all(np.diff(spread(places, 10)) > 10 - 1e-9)


@given(PLACES, st.integers(0, 2**32 - 1))
def test_no_other_such_places_are_nearer(places: np.ndarray, seed: int) -> None:
    """The set of allowed places is convex: the distance cannot fall in the direction of any of them."""
    made = spread(places, 10)
    allowed = np.cumsum(10 + np.random.default_rng(seed).exponential(5, len(places))) - 60
    assert np.dot(made - places, allowed - made) > -1e-6


def test_labels_that_are_apart_stay() -> None:
    places = np.array([0.0, 10, 25])
    assert np.array_equal(spread(places, 10), places)
    assert np.array_equal(spread(np.array([5.0, 5]), 10), [0, 10])
    assert len(spread(np.array([]), 10)) == 0


def test_labels_stand_beyond_every_interval() -> None:
    figure = Figure(figsize=(4, 3))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.errorbar([1.0, 2.0, 1.5], [1.0, 1.0, 1.2], xerr=[0.1, 0.2, 1.5], fmt="o")  # the widest is of a middle point
    axes.margins(x=0.1)
    figure.canvas.draw()  # sets the limits
    _end_labels(axes, [End(2.0, 1.0, "4", "C0", right=2.2), End(1.5, 1.2, "8", "C1", right=3.0)])
    end = axes.transData.transform((3.0, 1.0))[0]
    figure.canvas.draw()
    assert {text.get_text() for text in axes.texts} == {"4", "8"}
    assert all(Text.get_window_extent(text).x0 > end for text in axes.texts)
