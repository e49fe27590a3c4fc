"""Plots as SVG, with matplotlib where it is installed (bench-only requirement)."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_OURS = "#2b6cb0"
_OTHERS = "#a0aec0"
_WIDTH_IN, _HEIGHT_IN = 7.0, 3.6


def available() -> bool:
    """Tell whether plots can be drawn."""
    return importlib.util.find_spec("matplotlib") is not None


def bars(path: Path, title: str, unit: str, values: Mapping[str, float], ours: str) -> None:
    """Draw one horizontal bar per name; the bar of `ours` is highlighted."""
    figure, axes = _axes(title)
    names = list(values)
    drawn = axes.barh(
        names, [values[name] for name in names],
        color=[_OURS if name.startswith(ours) else _OTHERS for name in names],
    )  # fmt: skip
    axes.bar_label(drawn, fmt="%.3g", padding=3)
    axes.margins(x=0.12)
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    _save(figure, path)


def lines(
    path: Path,
    title: str,
    x_label: str,
    y_label: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    log_x: bool = True,
    log_y: bool = False,
) -> None:
    """Draw one line per series of (x, y) points."""
    figure, axes = _axes(title)
    for name, points in series.items():
        axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=name)
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    if len(series) > 1:
        axes.legend(frameon=False)
    _save(figure, path)


def _axes(title: str) -> tuple[Any, Any]:
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    # Without a date and random ids, the same figures give the same file.
    matplotlib.rcParams["svg.hashsalt"] = "seqstream"
    figure, axes = importlib.import_module("matplotlib.pyplot").subplots(
        figsize=(_WIDTH_IN, _HEIGHT_IN), layout="constrained"
    )
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    importlib.import_module("matplotlib.pyplot").close(figure)
