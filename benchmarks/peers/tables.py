"""The results as text: Markdown tables whose columns are aligned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .results import Results, Series, Spread
from .rows import Claim

__all__ = ["comparison", "format_figure", "format_table", "notes", "targets"]


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


def comparison(title: str, figure: str, unit: float, series: Sequence[Series]) -> str:
    """
    Return a table of one figure of all who did the same, the best first.

    :param unit: what the figure is multiplied by, such as a million for microseconds
    """
    found = [(each, spread) for each in series if (spread := each.spread(figure)) is not None]
    if not found:
        return ""
    best_is_most = figure == "rate"
    found.sort(key=lambda pair: pair[1].median, reverse=best_is_most)
    ours = next((spread for each, spread in found if _is_main(each)), None)
    rows = []
    for each, spread in found:
        ratio = "" if ours is None else format_figure(ours.median / spread.median)
        extremes = f"{format_figure(spread.least * unit)} to {format_figure(spread.most * unit)}"
        rows.append((each.probe.contender, format_figure(spread.median * unit), extremes, ratio))
    header = ("contender", title, "least to most", "lahja-asyncio is, times")
    return format_table(header, rows, "lrlr")


def _is_main(series: Series) -> bool:
    return series.probe.contender == "lahja-asyncio"


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
    for name, reason in results.left_out.items():
        lines.append(f"\nleft out: {name}: {reason}")
    for probe, times, reason in results.failures():
        lines.append(f"\nfailed, {times} times: {probe}: {reason}")
    return "\n".join(lines)
