"""
Draw what was measured, as SVG: ``python plots.py RESULTS.json FOLDER``.

It runs in the environment ``plots``, which has matplotlib. Equal results give equal files.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, NullLocator

COLOURS = {
    "lahja-asyncio": "#1f5fbf",
    "lahja-asyncio-python": "#7fa8e0",
    "lahja-trio": "#0e8f9e",
    "lahja-trio-python": "#7cc4cc",
    "lahja-uvloop": "#3d2f9e",
    "upstream": "#d9822b",
    "pyzmq": "#3f9b57",
    "pynng": "#8e5bb5",
    "zenoh": "#c0443c",
    "pipe": "#7a7a7a",
    "queue": "#a8a8a8",
    "socket": "#222222",
}
DASHES = {"asyncio": "-", "trio": "--", "uvloop": "-.", "blocking": ":"}
STYLE = {
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.size": 10,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "lines.markersize": 4,
    "svg.fonttype": "none",  # text stays text, which is small and can be searched
    "svg.hashsalt": "lahja",
}
FILE_OPTIONS: dict[str, Any] = {"metadata": {"Date": None, "Creator": None}}

Runs = list[dict[str, Any]]


def series(document: dict[str, Any], group: str, kind: str) -> Iterator[tuple[str, Runs]]:
    """Give the contenders of a group, and what they measured."""
    for each in document["series"]:
        runs = [run for run in each["runs"] if run is not None]
        is_variant = each["contender"].endswith("-snappy")
        if each["group"] == group and each["work"]["kind"] == kind and runs and not is_variant:
            yield each["contender"], runs


def sweep(document: dict[str, Any], prefix: str) -> dict[str, list[tuple[int, list[float]]]]:
    """Return the rates of all contenders by the number in the names of the groups."""
    found: dict[str, list[tuple[int, list[float]]]] = {}
    groups = dict.fromkeys(each["group"] for each in document["series"])
    for group in groups:
        if group.startswith(prefix):
            for name, runs in series(document, group, "stream"):
                point = (int(group.removeprefix(prefix)), [run["rate"] for run in runs])
                found.setdefault(name, []).append(point)
    return {name: sorted(points) for name, points in found.items()}


def colour_of(name: str) -> str:
    """Return the colour of a contender, or of its library."""
    return COLOURS[name] if name in COLOURS else COLOURS[name.split("-")[0]]


def line_of(name: str) -> dict[str, Any]:
    """Return how a contender's line looks."""
    loops = [loop for loop in DASHES if loop in name]
    width = 2.2 if name.startswith("lahja") else 1.4
    dashes = DASHES[loops[0]] if loops else "-"
    return {"color": colour_of(name), "linestyle": dashes, "linewidth": width, "label": name}


def short(value: float, _: Any = None) -> str:
    """Return a number as people say it."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def bytes_of(value: float, _: Any = None) -> str:
    """Return a size as people say it."""
    return f"{short(value)}B" if value >= 1000 else f"{value:.0f} B"


def throughput(document: dict[str, Any], folder: Path) -> None:
    """Draw a bar for each contender, from the fastest to the slowest."""
    found = {
        name: [run["rate"] for run in runs]
        for name, runs in series(document, "one to one", "stream")
    }
    names = sorted(found, key=lambda name: median(found[name]))
    medians = [median(found[name]) for name in names]
    below = [value - min(found[name]) for name, value in zip(names, medians, strict=True)]
    above = [max(found[name]) - value for name, value in zip(names, medians, strict=True)]
    figure, axes = plt.subplots(figsize=(7.2, 0.7 + 0.28 * len(names)))
    colours = [colour_of(name) for name in names]
    errors = {"ecolor": "#555555", "elinewidth": 1}
    axes.barh(names, medians, xerr=[below, above], color=colours, height=0.7, error_kw=errors)
    for index, (name, value) in enumerate(zip(names, medians, strict=True)):
        axes.annotate(
            short(value),
            (max(found[name]), index),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.set_xlabel("events per second, one sender to one receiver, payload of 100 bytes")
    axes.xaxis.set_major_formatter(FuncFormatter(short))
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.1, y=0.01)
    save(figure, folder / "throughput.svg")


def latency(document: dict[str, Any], folder: Path) -> None:
    """Draw how long the faster share of the requests took, up to one of ten thousand."""
    figure, axes = plt.subplots(figsize=(7.2, 4.4))
    for name, runs in series(document, "round trip", "ask"):
        columns = zip(*(run["distribution"] for run in runs), strict=True)
        micros = [1e6 * median(column) for column in columns]
        decades = [4 * point / (len(micros) - 1) for point in range(len(micros))]
        axes.plot(decades, micros, **line_of(name))
    axes.set_xlim(0, 3)
    axes.set_xticks([0, -math.log10(0.5), 1, 2, 3], ["0", "50 %", "90 %", "99 %", "99.9 %"])
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(short))
    axes.set_xlabel("share of the requests")
    axes.set_ylabel("µs until the answer, or less")
    legend(figure, axes)
    save(figure, folder / "latency.svg")


def sizes(document: dict[str, Any], folder: Path) -> None:
    """Draw the bytes per second by the size of the payload."""
    figure, axes = plt.subplots(figsize=(7.2, 4.4))
    for name, points in sweep(document, "size ").items():
        at = [size for size, _ in points]
        rates = [size * median(values) for size, values in points]
        axes.plot(at, rates, marker="o", **line_of(name))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(bytes_of))
    axes.yaxis.set_major_formatter(FuncFormatter(bytes_of))
    axes.set_xlabel("payload of an event, random bytes")
    axes.set_ylabel("payload per second, one sender to one receiver")
    legend(figure, axes)
    save(figure, folder / "sizes.svg")


def fan_out(document: dict[str, Any], folder: Path) -> None:
    """Draw the deliveries per second by the number of receivers."""
    figure, axes = plt.subplots(figsize=(7.2, 4.4))
    numbers: set[int] = set()
    for name, points in sweep(document, "fan-out ").items():
        at = [receivers for receivers, _ in points]
        numbers.update(at)
        axes.plot(at, [median(values) for _, values in points], marker="o", **line_of(name))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sorted(numbers), [str(number) for number in sorted(numbers)])
    axes.yaxis.set_major_formatter(FuncFormatter(short))
    axes.set_xlabel("receivers, each a process")
    axes.set_ylabel("deliveries per second, all together")
    legend(figure, axes)
    save(figure, folder / "fan-out.svg")


def legend(figure: Any, axes: Any) -> None:
    """Name the lines beside the plot, from the upper ones to the lower ones."""
    handles, labels = axes.get_legend_handles_labels()
    heights = [median(line.get_ydata()) for line in handles]
    order = sorted(range(len(handles)), key=lambda index: -heights[index])
    figure.legend(
        [handles[index] for index in order],
        [labels[index] for index in order],
        loc="outside right upper",
        fontsize=9,
        handlelength=2.6,
    )


def save(figure: Any, path: Path) -> None:
    """Write a plot, without a date and without spaces at the ends of its lines."""
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        axis.set_minor_locator(NullLocator())
    figure.savefig(path, format="svg", facecolor="white", **FILE_OPTIONS)
    plt.close(figure)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n")


def main() -> None:
    """Draw all plots for which there are results."""
    document = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(sys.argv[2])
    groups = {each["group"] for each in document["series"]}
    with plt.rc_context(STYLE):
        for prefix, draw in (
            ("one to one", throughput),
            ("round trip", latency),
            ("size ", sizes),
            ("fan-out ", fan_out),
        ):
            if any(group.startswith(prefix) for group in groups):
                draw(document, folder)


if __name__ == "__main__":
    main()
