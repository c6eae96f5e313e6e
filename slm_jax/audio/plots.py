"""Pictures of signals and training as PNG files; every function returns the path it wrote.

Drawn on explicit figures (no global pyplot state), so that they can be made in threads and beside notebooks.
"""

import colorsys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from slm_jax.audio.mel import LogMelConfig, hz_to_mel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Curve = tuple[Any, Any]
"""Steps and values, as sequences of numbers."""
Span = tuple[float, float, str]

INK, FAINT, GRID = "#1f2430", "#6b7280", "#e5e7eb"
LINES = ("#2563eb", "#ea580c", "#0d9488", "#9333ea", "#64748b", "#ca8a04")
DPI = 130
INCHES_PER_SECOND = 4.4
TICKS_HZ = (250, 500, 1000, 2000, 4000, 8000)


def plot_losses(path: str | Path, stages: Mapping[str, Mapping[str, Curve]], ylabel: str = "loss (nats)") -> Path:
    """One panel per stage with its curves: stage -> curve name -> (steps, values). Long curves are also smoothed."""
    columns = min(3, max(1, len(stages)))
    rows = -(-len(stages) // columns)
    figure = _figure(4.6 * columns, 3.3 * rows)
    for i, (stage, curves) in enumerate(stages.items()):
        axes = _clean(figure.add_subplot(rows, columns, i + 1))
        for (name, (steps, values)), colour in zip(curves.items(), _colours(len(curves)), strict=True):
            _curve(axes, np.asarray(steps), np.asarray(values, float), name, colour)
        axes.set(xlabel="step", ylabel=ylabel if i % columns == 0 else "")
        axes.set_title(stage, loc="left", fontsize=11, color=INK, fontweight="bold")
        _whole_ticks(axes.xaxis)
        if len(curves) > 1:
            axes.legend(frameon=False, fontsize=8)
    return _saved(figure, path)


def plot_units(
    path: str | Path,
    samples: Float[np.ndarray, "N"],
    rate_hz: int,
    units: Int[np.ndarray, "T"],
    *,
    unit_rate_hz: float | int = 50.0,
    phones: Sequence[Span] = (),
    title: str = "",
) -> Path:
    """A log-mel spectrogram over a ruler of its units: one coloured segment per run of a unit, with its number.

    `units`: one id per frame at `unit_rate_hz`. `phones`: spans (start s, end s, label) for one more row.
    """
    length_s = len(samples) / rate_hz
    heights = [3.0, 0.5] + ([0.32] if phones else [])
    figure = _figure(float(np.clip(length_s * INCHES_PER_SECOND, 7, 26)), 0.9 * sum(heights) + 0.8)
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights, hspace=0.08)
    spectrum = figure.add_subplot(grid[0])
    _spectrogram(spectrum, samples, rate_hz)
    spectrum.tick_params(labelbottom=False)
    spectrum.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold")
    below = [figure.add_subplot(grid[row], sharex=spectrum) for row in range(1, len(heights))]
    _ruler(below[0], unit_spans(units, unit_rate_hz), "unit", coloured=True, width_in=figure.get_figwidth() / length_s)
    if phones:
        below[0].tick_params(labelbottom=False)
        _ruler(below[1], phones, "phone", coloured=False, width_in=figure.get_figwidth() / length_s)
    below[-1].set_xlabel("time (s)")
    spectrum.set_xlim(0, length_s)
    return _saved(figure, path)


def plot_f0(
    path: str | Path, tracks: Mapping[str, Float[np.ndarray, "T"]], hop_s: float | int, title: str = ""
) -> Path:
    """F0 over time, one line per track (name -> Hz per frame, 0 where unvoiced: the line breaks there)."""
    longest = max((len(track) for track in tracks.values()), default=1) * hop_s
    figure = _figure(float(np.clip(longest * 2.6, 7, 20)), 3.0)
    axes = _clean(figure.add_subplot())
    for (name, track), colour in zip(tracks.items(), _colours(len(tracks)), strict=True):
        hz = np.where(np.asarray(track) > 0, track, np.nan)
        axes.plot(
            (np.arange(len(hz)) + 0.5) * hop_s, hz, color=colour, linewidth=2, marker="o", ms=2, label=name, alpha=0.9
        )
    axes.set(xlabel="time (s)", ylabel="F0 (Hz)", xlim=(0, longest))
    axes.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold")
    if len(tracks) > 1:
        axes.legend(frameon=False, fontsize=9, ncols=len(tracks), loc="lower right", bbox_to_anchor=(1, 1))
    return _saved(figure, path)


def plot_waveform(path: str | Path, samples: Float[np.ndarray, "N"], rate_hz: int, title: str = "") -> Path:
    """Amplitude over time, drawn as the envelope of minima and maxima so that long signals stay honest."""
    length_s = len(samples) / rate_hz
    figure = _figure(float(np.clip(length_s * 2.2, 7, 20)), 2.2)
    axes = _clean(figure.add_subplot())
    columns = max(1, min(len(samples), int(figure.get_figwidth() * DPI)))
    pieces = np.array_split(np.asarray(samples), columns)
    times = np.linspace(0, length_s, columns)
    low, high = np.array([p.min() for p in pieces]), np.array([p.max() for p in pieces])
    axes.fill_between(times, low, high, color=LINES[0], linewidth=0.4, edgecolor=LINES[0])
    peak = max(1e-3, float(np.abs(samples).max())) * 1.08
    axes.set(xlabel="time (s)", ylabel="amplitude", xlim=(0, length_s), ylim=(-peak, peak))
    axes.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold")
    return _saved(figure, path)


Point = tuple[float | None, tuple[float, float] | None]
"""A value and the bounds of its interval; None where it is not known."""


def plot_intervals(
    path: str | Path, rows: Mapping[str, Mapping[str, Point]], xlabel: str = "", title: str = ""
) -> Path:
    """A line for each row with a point and its interval for each series: row -> series -> (value, bounds)."""
    series = list(dict.fromkeys(name for points in rows.values() for name in points))
    figure = _figure(7.0, 1.3 + 0.42 * max(2, len(rows)))
    axes = _clean(figure.add_subplot())
    for number, (name, colour) in enumerate(zip(series, _colours(len(series)), strict=True)):
        shift = 0.26 * (number - (len(series) - 1) / 2)
        found = [(place + shift, *points[name]) for place, points in enumerate(rows.values()) if name in points]
        for place, _, bounds in found:
            if bounds is not None:
                axes.plot(bounds, [place, place], color=colour, linewidth=2.5, alpha=0.45, solid_capstyle="round")
        known = [(value, place) for place, value, _ in found if value is not None]
        values, places = zip(*known, strict=True) if known else ((), ())
        axes.plot(values, places, "o", color=colour, ms=6, label=name)
    ends = [end for points in rows.values() for _, bounds in points.values() for end in bounds or ()]
    axes.set(xlabel=xlabel, xlim=(-0.03, 0.03 + max([1.0, *ends])), ylim=(max(len(rows), 1) - 0.45, -0.55))
    axes.set_yticks(range(len(rows)), list(rows))
    axes.tick_params(axis="y", colors=INK, length=0)
    axes.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold")
    if series:
        axes.legend(frameon=False, fontsize=9, ncols=len(series), loc="lower right", bbox_to_anchor=(1, 1))
    return _saved(figure, path)


def plot_points(
    path: str | Path,
    points: Mapping[str, tuple[float, float, tuple[float, float] | None]],
    xlabel: str,
    ylabel: str,
    title: str = "",
) -> Path:
    """Named points in a plane, name -> (x, y, bounds of y)."""
    figure, axes = _over_costs(xlabel, ylabel, title)
    for (name, (x, y, bounds)), colour in zip(points.items(), _colours(len(points)), strict=True):
        if bounds is not None:
            axes.plot([x, x], bounds, color=colour, linewidth=2.5, alpha=0.45, solid_capstyle="round")
        axes.plot([x], [y], "o", color=colour, ms=7)
        axes.annotate(name, (x, y), xytext=(7, 4), textcoords="offset points", fontsize=8.5, color=INK)
    axes.set(ylim=(0, None))
    axes.margins(x=0.18)
    return _saved(figure, path)


def plot_lines(
    path: str | Path,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    xlabel: str,
    ylabel: str,
    title: str = "",
) -> Path:
    """Named lines through (x, y), lone points as points."""
    figure, axes = _over_costs(xlabel, ylabel, title)
    for (name, points), colour in zip(lines.items(), _colours(len(lines)), strict=True):
        axes.plot(*zip(*points, strict=True), "o-", color=colour, linewidth=2, ms=5, label=name)
    axes.legend(frameon=False, fontsize=9)
    return _saved(figure, path)


def plot_histogram(path: str | Path, groups: Mapping[str, Sequence[float]], xlabel: str = "", title: str = "") -> Path:
    """How often which value came, one panel per group, its median and 90 % marked; groups keep their own scales."""
    shown = {name: np.asarray(values, float) for name, values in groups.items() if len(values)}
    figure = _figure(max(7.0, 4.6 * len(shown)), 3.0)
    for number, ((name, values), colour) in enumerate(zip(shown.items(), _colours(len(shown)), strict=True)):
        axes = _clean(figure.add_subplot(1, len(shown), number + 1))
        axes.hist(values, bins=min(30, max(5, len(values) // 2)), color=colour, alpha=0.55, edgecolor="white")
        for share, style in ((50, "-"), (90, "--")):
            mark = float(np.percentile(values, share))
            axes.axvline(mark, color=INK, linewidth=1.2, linestyle=style, label=f"{share} %: {mark:.3g}")
        axes.set(xlabel=xlabel, ylabel="how often" if number == 0 else "", xlim=(0, None))
        _whole_ticks(axes.yaxis)
        axes.set_title(f"{title}: {name}" if title else name, loc="left", fontsize=11, color=INK, fontweight="bold")
        axes.legend(frameon=False, fontsize=8)
    return _saved(figure, path)


def plot_parts(path: str | Path, parts: Mapping[str, float], xlabel: str = "", title: str = "") -> Path:
    """What a sum is made of: a bar for each part, each beginning where the one before it ends."""
    figure = _figure(8.0, 0.9 + 0.32 * len(parts))
    axes, ends = _clean(figure.add_subplot()), np.cumsum(list(parts.values()))
    rows = zip(parts.items(), ends, _colours(len(parts)), strict=True)
    for place, ((name, value), end, colour) in enumerate(rows):
        axes.barh(place, value, left=end - value, color=colour, height=0.7)
        axes.text(end, place, f"  {name} {value:.3g}", va="center", fontsize=8.5, color=INK)
    axes.set(xlabel=xlabel, yticks=[], xlim=(0, 1.25 * ends[-1]))
    axes.invert_yaxis()
    axes.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold")
    return _saved(figure, path)


def unit_spans(units: Int[np.ndarray, "T"], unit_rate_hz: float | int) -> list[Span]:
    """(start s, end s, number) of every run of equal ids."""
    units = np.asarray(units)
    if not len(units):
        return []
    starts = np.concatenate([[0], np.flatnonzero(np.diff(units)) + 1, [len(units)]])
    return [(a / unit_rate_hz, b / unit_rate_hz, str(units[a])) for a, b in pairwise(starts)]


def _figure(width_in: float, height_in: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: all that judge a run import this module
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _over_costs(xlabel: str, ylabel: str, title: str) -> tuple["Figure", "Axes"]:
    """A plane whose x is logarithmic, since costs differ by factors."""
    figure = _figure(7.6, 5.0)
    axes = _clean(figure.add_subplot())
    axes.set(xscale="log", xlabel=xlabel, ylabel=ylabel)
    _plain_log_ticks(axes.xaxis)
    axes.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold")
    return figure, axes


def _saved(figure: "Figure", path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
    return path


def _clean(axes: "Axes") -> "Axes":
    """Light grid, no box."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, labelsize=8.5, length=3)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    return axes


def _whole_ticks(axis: "Axis") -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(5, integer=True))


def _plain_log_ticks(axis: "Axis") -> None:
    """1, 2, 5, 10 ... instead of powers."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


def _colours(count: int) -> list[str]:
    return [LINES[i % len(LINES)] for i in range(count)]


def _curve(axes: "Axes", steps: np.ndarray, values: np.ndarray, name: str, colour: str) -> None:
    """The values; when there are many, thin and pale under their running mean."""
    if len(values) < 40:
        axes.plot(steps, values, color=colour, linewidth=2, label=name, marker="o" if len(values) < 12 else None, ms=4)
        return
    reach = max(3, len(values) // 40)
    weights = np.ones(2 * reach + 1)
    known = np.isfinite(values)
    total = np.convolve(np.where(known, values, 0.0), weights)[reach:-reach]
    smooth = total / np.maximum(np.convolve(known, weights)[reach:-reach], 1)
    axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.28)
    axes.plot(steps, smooth, color=colour, linewidth=2, label=name)


def _spectrogram(axes: "Axes", samples: np.ndarray, rate_hz: int) -> None:
    """80 mels of 25 ms windows every 5 ms, 70 dB deep, with frequencies at the ticks."""
    window, hop, high = rate_hz // 40, rate_hz // 200, min(8000.0, rate_hz / 2)
    settings = LogMelConfig(
        rate_hz=rate_hz,
        n_fft=2 * window,
        window_length=window,
        hop=hop,
        high_hz=high,
        padding="centre",
        mel_scale="htk",
    )
    decibels = np.asarray(settings.make()(np.asarray(samples, np.float32)[None])[0]) * (20 / np.log(10))
    top = decibels.max()
    axes.imshow(
        decibels.T, origin="lower", aspect="auto", cmap="magma", vmin=top - 70, vmax=top, interpolation="nearest",
        extent=(-hop / 2 / rate_hz, (len(decibels) - 0.5) * hop / rate_hz, 0, hz_to_mel(high, "htk")),
    )  # fmt: skip
    ticks = [hz for hz in TICKS_HZ if hz <= high]
    axes.set_yticks([float(hz_to_mel(hz, "htk")) for hz in ticks], [f"{hz:g}" for hz in ticks])
    axes.set_ylabel("frequency (Hz)", color=INK)
    axes.tick_params(colors=FAINT, labelsize=8.5, length=3)
    axes.spines[:].set_visible(False)


def _ruler(axes: "Axes", spans: Sequence[Span], name: str, *, coloured: bool, width_in: float) -> None:
    """Segments side by side, each with its label where that fits; `width_in`: inches per second."""
    for start, end, label in spans:
        colour = unit_colour(label) if coloured else "#f3f4f6"
        axes.axvspan(start, end, facecolor=colour, edgecolor="white", linewidth=0.7)
        points, across = (end - start) * width_in * 72, 4.3 * len(label)
        if points >= 5.5:
            upright = points > across + 3
            axes.text(
                (start + end) / 2, 0.5, label, ha="center", va="center", color=INK, clip_on=True,
                fontsize=7.5 if upright else 6.5, rotation=0 if upright else 90,
            )  # fmt: skip
    axes.set(ylim=(0, 1), yticks=[])
    axes.set_ylabel(name, rotation=0, ha="right", va="center", color=INK)
    axes.tick_params(colors=FAINT, labelsize=8.5, length=3)
    axes.spines[:].set_visible(False)


def unit_colour(label: str) -> tuple[float, float, float]:
    """A pale colour of its own for every number, far apart for neighbours in number (golden-ratio steps of hue)."""
    number = int(label) if label.lstrip("-").isdigit() else sum(map(ord, label))
    hue, lightness = (number * 0.618033988749895) % 1.0, 0.72 + 0.1 * ((number // 3) % 3 - 1)
    return colorsys.hls_to_rgb(hue, lightness, 0.62)
