"""Figures as text: numbers, spreads, faults, and Markdown tables that a terminal shows as well."""

NONE = ""


def seconds(value):
    for unit, size in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def spread(time):
    """`1.2 ms (1.1 to 1.4)`: the median and the quartiles, in the median's unit."""
    text = seconds(time["median"])
    size = {"s": 1, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}[text.split()[1]]
    return f"{text} ({time['low'] / size:.3g} to {time['high'] / size:.3g})"


def count(value):
    return NONE if value is None else f"{value:.3g}" if value >= 0.001 else "0"


def faults(figure):
    """What was wrong with the answers; empty when nothing."""
    if "failed" in figure:
        return f"**fails**: {figure['failed']}"
    found = [
        f"{figure[name]} {text}"
        for name, text in (
            ("wrong", "wrong"),
            ("missed", "not found"),
            ("recomputed", "not found, computed again"),
        )
        if figure.get(name)
    ]
    return f"**{', '.join(found)}** of {figure['operations']}" if found else ""


def table(headers, rows):
    """An aligned Markdown table; empty without rows."""
    rows = [headers, *[[str(cell) for cell in row] for row in rows]]
    if len(rows) == 1:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(headers))]
    lines = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        + " |"
        for row in rows
    ]
    return "\n".join(
        [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]
    )
