"""Drawing of pictures: one style, panels, and for each a PNG and an SVG that follows the page's colours."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from xml.etree import ElementTree

import numpy as np
from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Each colour of a figure is one CSS variable of the page: the SVG is drawn in these and then renamed.
INK, MUTED, GRID = "#1f2430", "#646b78", "#e3e6eb"
# Distinct in pairs for every kind of colour vision (tests/report/test_colours.py); the marker says it too.
SERIES = ("#0a6ab4", "#d55e00", "#12a182", "#c95fa0", "#dba100", "#40475a")
MARKERS = "osD^vP"  # of the series
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

PANEL = 4.4  # inches: letters of 10 points then have 11 pixels on a screen of 390
EDGE = 4.0  # points around a panel, for letters of another font
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
    """A figure of up to two columns with ``count`` panels. A panel can be read on a phone, as wide as its screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(count, 2)
    rows = -(-count // columns)
    canvas = Figure(figsize=(PANEL * columns, height * rows), layout="constrained")
    FigureCanvasAgg(canvas)  # it measures texts
    grid = canvas.subplots(rows, columns, squeeze=False).ravel()
    for spare in grid[count:]:
        spare.remove()
    return canvas, list(grid[:count])


def legend_below(canvas: Figure, handles: Sequence[Artist]) -> None:
    """A legend under the panels, where it hides no data, in as many columns as fit the width of one panel."""
    renderer = canvas.canvas.get_renderer()  # type: ignore[attr-defined]
    panels = canvas.axes[0].get_subplotspec()
    limit = canvas.bbox.width / (panels.get_gridspec().ncols if panels is not None else 1)
    for handle in handles:
        handle.set_label(_writable(str(handle.get_label())))
    for columns in range(len(handles), 0, -1):
        legend = canvas.legend(
            handles=handles, loc="outside lower center", ncols=columns, fontsize=9, columnspacing=1.2
        )
        if columns == 1 or legend.get_window_extent(renderer).width <= limit:
            return
        legend.remove()


def lay_out(canvas: Figure) -> None:
    """Give everything its final place, and replace what no file of XML may contain in texts, which come from anyone."""
    from matplotlib.text import Text

    for text in canvas.findobj(Text):
        text.set_text(_writable(text.get_text()))
    canvas.draw_without_rendering()


def finish(canvas: Figure, name: str, caption: str) -> Plot:
    """Draw a figure as PNG and as SVG. Equal figures give equal bytes."""
    import matplotlib as mpl

    png, svg = io.BytesIO(), io.StringIO()
    lay_out(canvas)
    boxes = _boxes(canvas, name)
    # The salt makes identifiers reproducible, and different between pictures of one page.
    with mpl.rc_context({"svg.hashsalt": f"didi-{name}"}):
        canvas.savefig(png, format="png", dpi=160, facecolor="white", metadata={"Software": None})
        canvas.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Plot(name, caption, png.getvalue(), _inline(svg.getvalue(), _writable(caption), boxes))


Box = tuple[float, float, float, float]  # left, top, width, height in points


def _boxes(canvas: Figure, name: str) -> dict[str, Box]:
    """Where each panel and legend of a figure is, by the id that its group gets in the SVG.

    Panels get the same margins around their axes, so that all of them are shown at one scale.
    """
    renderer, points = canvas.canvas.get_renderer(), 72 / canvas.dpi  # type: ignore[attr-defined]
    inner = [axes.get_window_extent(renderer) for axes in canvas.axes]
    outer = [axes.get_tightbbox(renderer) or box for axes, box in zip(canvas.axes, inner, strict=True)]
    pairs = list(zip(inner, outer, strict=True))
    left, right = max(i.x0 - o.x0 for i, o in pairs), max(o.x1 - i.x1 for i, o in pairs)
    below, above = max(i.y0 - o.y0 for i, o in pairs), max(o.y1 - i.y1 for i, o in pairs)
    found = {}
    for number, (axes, box) in enumerate(zip(canvas.axes, inner, strict=True)):
        axes.set_gid(f"{name}-panel-{number}")
        found[axes.get_gid() or ""] = (box.x0 - left, box.y0 - below, box.x1 + right, box.y1 + above)
    for number, legend in enumerate(canvas.legends):
        legend.set_gid(f"{name}-legend-{number}")
        extent = legend.get_window_extent(renderer)
        found[legend.get_gid() or ""] = (extent.x0, extent.y0, extent.x1, extent.y1)
    top, edge = canvas.bbox.height, EDGE / points
    return {
        key: (
            (x0 - edge) * points,
            (top - y1 - edge) * points,
            (x1 - x0 + 2 * edge) * points,
            (y1 - y0 + 2 * edge) * points,
        )
        for key, (x0, y0, x1, y1) in found.items()
    }


def _inline(svg: str, label: str, boxes: Mapping[str, Box]) -> Markup:
    """An SVG file as elements of an HTML page, one for each panel: without addresses or fixed size, and with CSS
    variables as colours.

    It is taken apart and written again, so that a text in it stays a text.
    """
    picture = ElementTree.fromstring(svg)
    for element in picture.iter():
        element.tag = element.tag.removeprefix(SVG)
        element.attrib = {name.rpartition("}")[2]: _coloured(value) for name, value in element.items()}
    groups = {element.get("id"): element for element in picture.iter("g")}
    pieces: list[str] = []
    for key, (x, y, width, height) in boxes.items():
        kind = key.split("-")[-2]
        piece = ElementTree.Element("svg", {"viewBox": f"{x:.2f} {y:.2f} {width:.2f} {height:.2f}", "class": kind})
        if kind == "legend":
            piece.set("style", f"max-width: {1.6 * width:.0f}px")
        piece.attrib |= {"aria-hidden": "true"} if pieces else {"role": "img", "aria-label": label}
        piece.extend([] if pieces else picture.findall("defs"))  # shared by all pieces of the page
        piece.append(groups[key])
        pieces.append(ElementTree.tostring(piece, encoding="unicode").strip())
    return Markup("".join(pieces))


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
