"""Draw a Figure as PNG, with matplotlib (extra `plots`)."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

from danlu.errors import MissingExtra
from danlu.reporting.figure import Band, Bar, Figure, Label, Line, Mark, Panel, Points, Rule, Text
from danlu.reporting.study_data import Bilingual, clean
from danlu.system.private_files import keep_inside_cache

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

_INK, _DIM, _GRID = "#1c2126", "#5b6670", "#e4e8ec"
_SERIES_COLOURS = (
    "#2563a8", "#c2500a", "#0f766e", "#a21c6b", "#7a6a00",
    "#5b3fb5", "#b3261e", "#3f6212", "#0e7490", "#6b5b53",
)  # fmt: skip
_SHADES_OF_BLUE = (  # from the worst to the best
    "#c9d3de", "#b4c6da", "#9fb9d6", "#88abd0", "#709cca",
    "#578cc1", "#3f7ab4", "#2b67a2", "#1a528a", "#0b3b6f",
)  # fmt: skip
_COLOURS = {
    "complete": "#2563a8",
    "trial": "#2563a8",
    "pruned": "#b4560a",
    "failed": "#b3261e",
    "best": "#0f766e",
    "front": "#0f766e",
    "so-far": "#0f766e",
    "target": "#5b6670",
    "first": "#2563a8",
    "second": "#b4560a",
    **{f"s{number}": colour for number, colour in enumerate(_SERIES_COLOURS)},
    **{f"r{shade}": colour for shade, colour in enumerate(_SHADES_OF_BLUE)},
}
_DASHES = {
    "s1": (8, 3),
    "s2": (3, 2),
    "s3": (10, 3, 2, 3),
    "s5": (6, 2),
    "s6": (2, 2),
    "s7": (12, 3),
    "s9": (4, 4),
    "target": (5, 4),
}
_SHAPES = {"pruned": "D", "failed": "x"}
_CHINESE = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "SimHei",
)


def is_available() -> bool:
    """Whether matplotlib is installed."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def draw(figure: Figure) -> bytes:
    """The bytes of the PNG file, in English, 760 pixels wide at 1.6 times the density. Raises
    MissingExtra without matplotlib."""
    if not is_available():
        raise MissingExtra("matplotlib", "plots", "drawing PNG plots")
    keep_inside_cache("MPLCONFIGDIR", "matplotlib", ".config/matplotlib")
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    settings: Any = {
        "font.family": _fonts(),
        "font.size": 9,
        "text.parse_math": False,
        "axes.unicode_minus": False,
    }
    with warnings.catch_warnings(), matplotlib.rc_context(settings):
        warnings.filterwarnings(
            "ignore", message="Glyph", category=UserWarning
        )  # a name in letters that no font here has
        rows = -(-len(figure.panels) // figure.columns)
        height = (rows * figure.height + 40 + 24 * bool(figure.legend)) / 100
        canvas = Canvas(figsize=(7.6, height), dpi=160, layout="constrained", facecolor="white")
        canvas.suptitle(figure.title.en, fontsize=11, color=_INK)
        for index, panel in enumerate(figure.panels):
            _panel(canvas.add_subplot(rows, figure.columns, index + 1), panel)
        if figure.legend:
            marks = [_legend_handle(role) for role, _ in figure.legend]
            names = [_words(words) for _, words in figure.legend]
            canvas.legend(
                marks,
                names,
                loc="outside lower center",
                ncols=min(len(marks), 6),
                frameon=False,
                fontsize=8,
            )
        sink = io.BytesIO()
        FigureCanvasAgg(canvas).print_png(sink, metadata={"Software": None})
        return sink.getvalue()


def _fonts() -> list[str]:
    from matplotlib import font_manager

    there = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in _CHINESE if name in there)]


def _words(text: Text) -> str:
    return clean(text.en if isinstance(text, Bilingual) else text)


def _panel(axes: Axes, panel: Panel) -> None:
    for mark in panel.marks:
        _mark(axes, mark, panel)
    if panel.x.log:
        axes.set_xscale("log")
    if panel.y.log:
        axes.set_yscale("log")
    axes.set_xlim(panel.x.low, panel.x.high)
    axes.set_ylim(panel.y.low, panel.y.high)
    for side, scale in ((axes.xaxis, panel.x), (axes.yaxis, panel.y)):
        side.set_ticks(
            [value for value, _ in scale.ticks], labels=[clean(name) for _, name in scale.ticks]
        )
        side.set_ticks([], minor=True)
        side.set_label_text(_words(scale.label), color=_DIM)
    axes.tick_params(colors=_DIM, length=3 if panel.grid else 0)
    if panel.title:
        axes.set_title(_words(panel.title), fontsize=9, loc="left", color=_INK)
    for name, spine in axes.spines.items():
        spine.set_visible(panel.grid and name == "bottom")
        spine.set_color("#9aa5af")
    if panel.grid:
        axes.grid(axis="y", color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)


def _mark(axes: Axes, mark: Mark, panel: Panel) -> None:
    if isinstance(mark, Points):
        _dots(axes, mark, panel)
    elif isinstance(mark, Line):
        kind = mark.role.partition(" ")[0]
        thin, pale = (
            (1.1, 0.6)
            if kind in ("trial", "pruned", "target") or mark.role.endswith(" parallel")
            else (1.7, 1.0)
        )
        y = [_clipped(panel, value) for value in mark.y]
        (drawn,) = axes.plot(
            mark.x,
            y,
            color=_COLOURS[kind],
            linewidth=thin,
            alpha=pale,
            drawstyle="steps-post" if mark.steps else "default",
        )
        if kind in _DASHES:
            drawn.set_dashes(_DASHES[kind])
    elif isinstance(mark, Band):
        low, high = ([_clipped(panel, value) for value in side] for side in (mark.low, mark.high))
        axes.fill_between(mark.x, low, high, color=_COLOURS[mark.role], alpha=0.14, linewidth=0)
    elif isinstance(mark, Bar):
        kind, _, some = mark.role.partition(" ")
        axes.barh(mark.y, mark.x, mark.thickness, color=_COLOURS[kind], alpha=0.5 if some else 1.0)
        axes.annotate(
            mark.caption,
            (mark.x, mark.y),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=_DIM,
        )
    elif isinstance(mark, Label):
        from matplotlib.patheffects import withStroke

        side = {"start": "left", "middle": "center", "end": "right"}[mark.anchor]
        at = (0, mark.above * 0.72)
        halo = [withStroke(linewidth=2.5, foreground="white")]
        axes.annotate(
            _words(mark.text),
            (mark.x, mark.y),
            at,
            textcoords="offset points",
            ha=side,
            va="center",
            fontsize=7.5,
            color=_DIM,
            path_effects=halo,
        )
    elif isinstance(mark, Rule):
        axes.axvline(mark.x, color="#9aa5af", linewidth=0.9)


def _dots(axes: Axes, mark: Points, panel: Panel) -> None:
    roles = list(mark.roles) or [mark.role] * len(mark.x)
    for role in dict.fromkeys(roles):
        places = [index for index, dot_role in enumerate(roles) if dot_role == role]
        x, y = (
            [mark.x[index] for index in places],
            [_clipped(panel, mark.y[index]) for index in places],
        )
        look: dict[str, Any] = {
            "color": _COLOURS[role],
            "s": 40 if role == "best" else 16,
            "marker": _SHAPES.get(role, "o"),
            "linewidths": 1,
        }
        if role == "pruned":
            look = {**look, "facecolors": "white", "edgecolors": look.pop("color")}
        axes.scatter(x, y, **look, zorder=3, clip_on=False)


def _clipped(panel: Panel, value: float) -> float:
    """The value, moved to the edge of the axis where it is beyond."""
    return min(max(value, panel.y.low), panel.y.high)


def _legend_handle(role: str) -> Line2D | Patch:
    """The mark that the legend shows for a role."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    kind, _, name = role.partition(" ")
    if kind == "line":
        line = Line2D([], [], color=_COLOURS[name], linewidth=1.7)
        if name in _DASHES:
            line.set_dashes(_DASHES[name])
        return line
    if kind == "bar":
        return Patch(color=_COLOURS[name])
    hollow = "white" if kind == "pruned" else _COLOURS[kind]
    return Line2D(
        [],
        [],
        linestyle="",
        marker=_SHAPES.get(kind, "o"),
        markersize=5,
        color=_COLOURS[kind],
        markerfacecolor=hollow,
    )
