"""Drawing of pictures: one style, panels, and for each a PNG and an SVG that follows the page's colours."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from xml.etree import ElementTree

import numpy as np
from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Each colour of a figure is one CSS variable of the page: the SVG is drawn in these and then renamed.
INK, MUTED, GRID = "#1f2430", "#6b7280", "#e3e6eb"
SERIES = ("#3b6fb6", "#d1571f", "#2a8c6e", "#8a5bb5", "#b08a1e", "#5b6472")
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "line", **{colour: f"series-{i}" for i, colour in enumerate(SERIES)}}
STYLE = {
    "font.size": 10.5,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar sign in a name is one
}

SVG = "{http://www.w3.org/2000/svg}"
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Plot:
    """One picture: file name, caption, PNG bytes, and an SVG element to stand in a page."""

    name: str
    caption: str
    png: bytes
    svg: Markup


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Draw in the style of the reports, without changing the caller's matplotlib settings."""

    @wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib as mpl

        with mpl.rc_context(STYLE):  # type: ignore[arg-type]
            return draw(*args, **kwargs)

    return inner


def panels_of(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of up to two columns with ``count`` panels."""
    from matplotlib.figure import Figure

    columns = min(count, 2)
    rows = -(-count // columns)
    canvas = Figure(figsize=(6.2 if columns == 1 else 8.6, height * rows), layout="constrained")
    grid = canvas.subplots(rows, columns, squeeze=False).ravel()
    for spare in grid[count:]:
        spare.remove()
    return canvas, list(grid[:count])


def lay_out(canvas: Figure) -> None:
    """Give everything its final place, and replace what no file of XML may contain in texts, which come from anyone."""
    from matplotlib.text import Text

    for text in canvas.findobj(Text):
        text.set_text(_writable(text.get_text()))
    canvas.draw_without_rendering()


def finish(canvas: Figure, name: str, caption: str) -> Plot:
    import matplotlib as mpl

    png, svg = io.BytesIO(), io.StringIO()
    lay_out(canvas)
    # The salt makes identifiers reproducible, and different between pictures of one page.
    with mpl.rc_context({"svg.hashsalt": f"didi-{name}"}):
        canvas.savefig(png, format="png", dpi=160, facecolor="white", metadata={"Software": None})
        canvas.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Plot(name, caption, png.getvalue(), _inline(svg.getvalue(), _writable(caption)))


def _inline(svg: str, label: str) -> Markup:
    """An SVG file as an element of an HTML page: without addresses or fixed size, and with CSS variables as colours.

    It is taken apart and written again, so that a text in it stays a text.
    """
    picture = ElementTree.fromstring(svg)
    for parent in [*picture.iter()]:
        for child in [*parent]:
            if child.tag == f"{SVG}metadata":
                parent.remove(child)
    for element in picture.iter():
        element.tag = element.tag.removeprefix(SVG)
        element.attrib = {name.rpartition("}")[2]: _coloured(value) for name, value in element.items()}
    for name in ("width", "height", "version"):
        picture.attrib.pop(name, None)
    picture.attrib |= {"role": "img", "aria-label": label}
    return Markup(ElementTree.tostring(picture, encoding="unicode").strip())


def _coloured(value: str) -> str:
    for colour, variable in VARIABLES.items():
        value = value.replace(colour, f"var(--{variable})")
    return value


def _writable(text: str) -> str:
    """A text that XML can hold: what no file of it may contain is replaced."""
    return _NOT_XML.sub("\ufffd", text)


def log_axis(axis: Any) -> None:
    """Make an axis logarithmic, with plain numbers at round values."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.axes.set_yscale("log")
    low, high = axis.get_view_interval()
    span = high / low
    fine = [float(x) for x in np.arange(1, 10, 0.5 if span < 2.5 else 1)]
    subs = [1.0] if span > 300 else [1.0, 2.0, 5.0] if span > 8 else fine
    axis.set_major_locator(LogLocator(base=10, subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    axis.set_minor_formatter(NullFormatter())
