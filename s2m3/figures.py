"""Figures of plans and churn with matplotlib (the extra `plot`): SVG, PNG or PDF, for a phone's width and dark mode.

Every figure is as wide as a phone's screen and has a background of its own. An SVG takes the reader's dark mode, and is
dark on light where a page does not tell of it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from s2m3.schemas import extras
from s2m3.schemas.errors import BadInputError

__all__ = ["bars", "check_suffix", "dots", "lines", "new_figure", "save", "stacked"]

_SUFFIXES = (".svg", ".png", ".pdf")
#: Inches at 96 pixels an inch: 400 pixels, the width of a phone.
_WIDTH_IN = 4.17
_DPI = 192
_INK, _FAINT, _GROUND = "#1f2328", "#8c959f", "#ffffff"
#: Colours of series (Okabe and Ito), told apart with any colour vision and on white and black.
SERIES = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#b8a000", "#8c959f")
#: Characters of a name on an axis, before it is broken.
_LONGEST = 20
#: Characters of a name in a legend with three columns.
_LONGEST_OF_THREE = 16
_MARKERS = "osD^vPX*"
_DARK = {_GROUND: "#0d1117", _INK: "#e6edf3", "#0072b2": "#4aa8e0"}


def check_suffix(path: Path) -> None:
    """Checks, before anything is computed, that a figure can be made and its file's name has a known suffix.

    Raises:
        BadInputError: The suffix is none of .svg, .png, .pdf, or the folder is not there.
        NotInstalledError: matplotlib is not installed.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise BadInputError(f"--plot {path}: the name ends with {' or '.join(_SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise BadInputError(f"--plot {path}: there is no folder {path.parent}")
    extras.require("plot", "a figure")


def new_figure(heights: Sequence[float]) -> tuple[Any, list[Any]]:
    """Returns a figure and its panels, one below the other; `heights` in inches."""
    from matplotlib import rc_context  # noqa: PLC0415  # slow to import, and only figures need it
    from matplotlib.figure import Figure  # noqa: PLC0415

    colours = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), _INK)
    with rc_context({"font.size": 9, "axes.edgecolor": _FAINT, **colours}):
        figure = Figure(figsize=(_WIDTH_IN, sum(heights)), layout="constrained")
        panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=list(heights))
    found = [row[0] for row in panels]
    for panel in found:
        panel.patch.set_alpha(0)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(visible=True, axis="x", color=_FAINT, alpha=0.3, linewidth=0.6)
        panel.set_axisbelow(True)
        panel.tick_params(length=2)
    return figure, found


def bars(panel: Any, groups: Sequence[str], values: Mapping[str, Sequence[float | None]], *, unit: str) -> None:
    """Draws horizontal bars, the first group on top; a value of None is written as "none".

    Args:
        panel: Axes of `new_figure`.
        groups: Names on the axis.
        values: Series -> a value for each group.
        unit: The label of the values' axis, with the unit.
    """
    thick = 0.8 / len(values)
    for s, (name, row) in enumerate(values.items()):
        at = [g + (s - (len(values) - 1) / 2) * thick for g in range(len(groups))]
        known = [(y, value) for y, value in zip(at, row, strict=True) if value is not None]
        shown = {"height": thick * 0.9, "color": SERIES[s % len(SERIES)], "label": name}
        panel.barh([y for y, _ in known], [value for _, value in known], **shown)
        for y, value in zip(at, row, strict=True):
            if value is None and s == 0:
                panel.text(0, y, " none", va="center", fontsize=8, color=_INK)
    _name_groups(panel, groups, unit)
    if len(values) > 1:
        _legend(panel)


def stacked(panel: Any, groups: Sequence[str], values: Mapping[str, Sequence[float]], *, unit: str) -> None:
    """Draws horizontal bars made of parts, the first group on top; arguments as for `bars`."""
    left = [0.0] * len(groups)
    for s, (name, row) in enumerate(values.items()):
        colour = _FAINT if name == "free" else SERIES[s % len(SERIES)]
        panel.barh(range(len(groups)), row, left=left, height=0.7, color=colour, label=name)
        left = [start + value for start, value in zip(left, row, strict=True)]
    _name_groups(panel, groups, unit)
    _legend(panel)


def dots(panel: Any, groups: Sequence[str], values: Mapping[str, Sequence[float | None]], *, unit: str) -> None:
    """Draws a mark for each value on a logarithmic axis, the first group on top; arguments as for `bars`."""
    for s, (name, row) in enumerate(values.items()):
        known = [(y, value) for y, value in enumerate(row) if value is not None]
        style = {"color": SERIES[s % len(SERIES)], "marker": _MARKERS[s % len(_MARKERS)], "linestyle": "none"}
        size = max(4, 9 - s)  # a mark below an equal one stays visible
        panel.plot([value for _, value in known], [y for y, _ in known], label=name, markersize=size, **style)
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    panel.grid(visible=True, axis="y", color=_FAINT, alpha=0.15, linewidth=0.6)
    _name_groups(panel, groups, unit)
    _legend(panel)


def lines(
    panel: Any, x: Sequence[Any], values: Mapping[str, Sequence[float | None]], *, across: str, unit: str
) -> None:
    """Draws a line for each series; numbers over a wide range of x get a logarithmic axis, words an even one.

    Args:
        panel: Axes of `new_figure`.
        x: What is on the horizontal axis.
        values: Series -> a value for each x; None leaves a gap.
        across: Label of the horizontal axis.
        unit: Label of the vertical axis, with the unit.
    """
    numeric = all(isinstance(one, int | float) and not isinstance(one, bool) for one in x)
    at = list(x) if numeric else list(range(len(x)))
    for s, (name, row) in enumerate(values.items()):
        heights = [float("nan") if value is None else value for value in row]
        style = {"color": SERIES[s % len(SERIES)], "marker": _MARKERS[s % len(_MARKERS)], "markersize": 4}
        width = max(1.2, 3.6 - 0.8 * s)  # a line below an equal one stays visible
        panel.plot(at, heights, label=name, linewidth=width, **style)
    if numeric and min(at) > 0 and max(at) / min(at) >= 10:  # noqa: PLR2004
        panel.set_xscale("log")
        panel.minorticks_off()
    panel.set_xticks(at, [f"{one:g}" if numeric else str(one) for one in x])
    panel.set_ylim(bottom=0)
    panel.grid(visible=True, axis="y", color=_FAINT, alpha=0.3, linewidth=0.6)
    panel.set_xlabel(across)
    panel.set_ylabel(unit)
    _legend(panel)


def _name_groups(panel: Any, groups: Sequence[str], unit: str) -> None:
    panel.set_yticks(range(len(groups)), [fill(name, _LONGEST) for name in groups])
    panel.set_ylim(len(groups) - 0.4, -0.6)
    panel.set_xlabel(unit)
    panel.tick_params(axis="y", length=0)


def _legend(panel: Any) -> None:
    """Puts the legend above the panel, where it covers nothing."""
    names = panel.get_legend_handles_labels()[1]
    columns = 3 if max(map(len, names), default=0) <= _LONGEST_OF_THREE else 2
    place: dict[str, Any] = {
        "loc": "lower left",
        "bbox_to_anchor": (0, 1.0),
        "ncols": columns,
        "frameon": False,
        "fontsize": 8,
    }
    place["labelcolor"] = _INK
    panel.legend(handlelength=1.2, columnspacing=1.0, borderaxespad=0.2, **place)


def save(figure: Any, path: Path) -> None:
    """Writes a figure; equal figures give equal files.

    Raises:
        BadInputError: The file cannot be written.
    """
    from matplotlib import rc_context  # noqa: PLC0415  # as above

    suffix = path.suffix.lower()
    kind: dict[str, Any] = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}[suffix]
    try:
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": "s2m3", "font.size": 9}):
            figure.savefig(path, dpi=_DPI, facecolor=_GROUND, metadata=kind)
        if suffix == ".svg":
            drawn = path.read_text(encoding="utf-8")
            path.write_text(_with_dark_mode(drawn), encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"--plot: {error}") from error


def _with_dark_mode(drawn: str) -> str:
    """Returns an SVG with a style sheet that changes ink and background where the reader prefers a dark screen."""
    rules = "".join(
        f'[style*="{what}: {light}"]{{{what}:{dark} !important}}'
        for light, dark in _DARK.items()
        for what in ("fill", "stroke")
    )
    sheet = f"<style>text{{font-family:system-ui,sans-serif}}@media (prefers-color-scheme: dark){{{rules}}}</style>"
    head, tag, rest = drawn.partition("<defs>")
    return "\n".join(line.rstrip() for line in f"{head}{sheet}{tag}{rest}".splitlines()) + "\n"
