"""How every plot looks: size, colours, axes, and the way from a figure to a page."""

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, Final, ParamSpec

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

INK: Final = "#1c2733"
MUTED: Final = "#6b7885"
GRID: Final = "#e3e8ee"
GOOD: Final = "#1a7f5a"
BAD: Final = "#c2413b"
WARM: Final = "#d98324"
BLUE: Final = "#2b6cb0"
PALE: Final = "#9ec1e6"
PURPLE: Final = "#7a4fa3"
CYCLE: Final = ("#2b6cb0", "#d98324", "#1a7f5a", "#7a4fa3", "#c2413b", "#3aa6b9", "#8a6d3b", "#5c6b7a")
BANDS: Final = {"u": "#5b3fa0", "g": "#2a8f6d", "r": "#c2413b", "i": "#d98324", "z": "#8a5a2b", "y": "#4a4a4a"}

STYLE: Final[Any] = {
    "font.size": 9.5, "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"],
    "axes.edgecolor": MUTED, "axes.labelcolor": INK, "axes.titlecolor": INK, "axes.titlesize": 10.5,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 8.0, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "grid.color": GRID, "grid.linewidth": 0.8,
    "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK, "text.color": INK,
    "legend.framealpha": 0.75, "legend.edgecolor": "none", "legend.fancybox": False, "legend.fontsize": 8.5,
    "lines.linewidth": 1.8, "lines.markersize": 5,
    "svg.fonttype": "path", "svg.hashsalt": "alert-twin", "figure.facecolor": "white", "savefig.facecolor": "white"}


P = ParamSpec("P")


def styled(plot: Callable[P, Figure]) -> Callable[P, Figure]:
    """The plot function, drawing in the report's style wherever it is called from."""
    @wraps(plot)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            return plot(*args, **kwargs)
    return drawn


def panels(columns: int = 1, *, width: float = 0.0, height: float = 3.5, labels: Sequence[str] = (),
           right: float = 0.15) -> tuple[Figure, list[Axes]]:
    """A figure of one or several panels beside each other; called by functions that are `styled`.

    `labels` are the longest texts that will stand left of a panel, one per panel or for all; `right` is the margin
    [inch]. Margins are set here: a layout engine doubles the time of drawing.
    """
    width = width or 5.2 * columns
    figure = Figure(figsize=(width, height), dpi=100)
    lefts = [max(0.66, 0.2 + 0.078 * len(labels[min(i, len(labels) - 1)])) if labels else 0.66 for i in range(columns)]
    each = (width - sum(lefts) - right * columns) / columns
    axes, x = [], 0.0
    for left in lefts:
        x += left
        axes.append(figure.add_axes((x / width, 0.52 / height, each / width, (height - 0.9) / height)))
        x += each + right
    return figure, axes


def svg(figure: Figure) -> str:
    """The figure as the source of an image, `data:image/svg+xml;base64,...`; the same bytes for the same figure."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        FigureCanvasSVG(figure).print_figure(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def png(figure: Figure, dpi: int = 130) -> bytes:
    """The figure as PNG."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.set_dpi(dpi)
        FigureCanvasAgg(figure).print_figure(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def logarithmic(axis: Axis) -> None:
    """Plain numbers at 1, 2 and 5 of each decade of a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def marked(figure: Figure, text: str) -> None:
    """Say in a corner of what fidelity a figure is, and whether measured or modelled."""
    figure.text(0.995, 0.995, text, ha="right", va="top", fontsize=7.5, color=MUTED)


def nothing(axes: Axes, text: str) -> None:
    """An empty panel that says why."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color=MUTED, transform=axes.transAxes, wrap=True)


def label_ends(axes: Axes, texts: Iterable[tuple[float, float, str]], colour: str = MUTED, size: float = 8.0) -> None:
    """Small text at data positions, to the right of each."""
    for x, y, text in texts:
        axes.annotate(text, (x, y), xytext=(4, 0), textcoords="offset points", va="center", color=colour, fontsize=size)
