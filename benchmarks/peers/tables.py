"""The results as text: Markdown tables whose columns are aligned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .results import Results, Spread
from .rows import Claim, Comparison

__all__ = ["comparison", "figures", "format_figure", "format_table", "notes", "targets"]

_MAIN = "lahja-asyncio"
_UNITS = {  # of each figure: what it is shown in, and how many of these are one of the figure
    "rate": ("per second", 1.0),
    "p50": ("µs", 1e6),
    "p99": ("µs", 1e6),
    "sender": ("µs of the sender's processor", 1e6),
    "seconds": ("ms", 1e3),
    "bytes": ("bytes per event", 1.0),
    "growth": ("times", 1.0),
}


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]], right: str = "") -> str:
    """
    Return a Markdown table.

    :param right: for each column ``r`` where it is to be aligned on the right, ``l`` otherwise
    """
    lines = [[*header], *([*row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    sides = right.ljust(len(header), "l")

    def one(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(cells, widths, sides, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * (width - 1) + (":" if side == "r" else "-")
        for width, side in zip(widths, sides, strict=True)
    ]
    return "\n".join((one(lines[0]), one(rule), *(one(line) for line in lines[1:])))


def format_figure(value: float) -> str:
    """Return a number with about three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _bound(claim: Claim) -> str:
    sign = "≥" if claim.at_least else "≤"
    return f"{sign} {claim.bound:.3g}"


def targets(claims: Iterable[Claim], results: Results) -> str:
    """Return the table of the targets: median of the rounds, least and most, bound, met or not."""
    rows = []
    for claim in claims:
        spread = Spread.of(claim.values(results))
        verdict = {True: "met", False: "not met", None: "?"}[claim.is_met(results)]
        if spread is None:
            measured, extremes = "–", claim.trouble(results)[:60] or "not measured"
        else:
            measured = format_figure(spread.median)
            extremes = f"{format_figure(spread.least)} to {format_figure(spread.most)}"
        rows.append((str(claim.row), claim.text, measured, extremes, _bound(claim), verdict))
    header = ("row", "what", "measured", "least to most", "target", "")
    return format_table(header, rows, "rlrll")


def comparison(comparison: Comparison, results: Results) -> str:
    """Return a table of one figure of all who did the same, the best first."""
    unit, scale = _UNITS[comparison.figure]
    found = [
        (each.probe.contender, spread)
        for each in results.group(comparison.group)
        if (spread := each.spread(comparison.figure)) is not None
    ]
    if not found:
        return ""
    is_rate = comparison.figure == "rate"
    found.sort(key=lambda pair: pair[1].median, reverse=is_rate)
    ours = dict(found).get(_MAIN)
    rows = []
    for name, spread in found:
        times = ""
        if ours is not None:
            times = format_figure(
                ours.median / spread.median if is_rate else spread.median / ours.median
            )
        rows.append((name, *_scaled(spread, scale), times))
    header = (comparison.text, unit, "least to most", f"{_MAIN} is so many times as good")
    return format_table(header, rows, "lrlr")


def figures(groups: Iterable[str], results: Results) -> str:
    """Return a table of all figures of some groups."""
    rows = []
    for group in groups:
        for series in results.group(group):
            for figure, (unit, scale) in _UNITS.items():
                if figure in (series.runs[0] or {}) and (spread := series.spread(figure)):
                    rows.append((group, str(series.probe), *_scaled(spread, scale), unit))
    if not rows:
        return ""
    return format_table(("group", "what", "median", "least to most", "unit"), rows, "llrll")


def _scaled(spread: Spread, scale: float) -> tuple[str, str]:
    """Return a median, and its extremes, as text."""
    extremes = f"{format_figure(spread.least * scale)} to {format_figure(spread.most * scale)}"
    return format_figure(spread.median * scale), extremes


def notes(results: Results) -> str:
    """Return what ran, where, and what did not run."""
    about = results.about
    lines = [
        f"{about['processor']}, {about['cores']} cores, {about['system']}, {about['python']};",
        f"{about['rounds']} rounds of about {about['seconds']:g} s; medians of the rounds.",
        "",
    ]
    rows = [
        (
            name,
            said["implementation"],
            ", ".join(f"{what} {version}" for what, version in said["versions"].items()),
        )
        for name, said in results.contenders.items()
    ]
    lines.append(format_table(("contender", "implementation", "versions"), rows))
    reasons: dict[str, list[str]] = {}
    for name, reason in results.left_out.items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        lines.append(f"\nleft out, because {reason}: {', '.join(names)}")
    for probe, times, reason in results.failures():
        lines.append(f"\nfailed, runs: {times}: {probe}: {reason}")
    return "\n".join(lines)
