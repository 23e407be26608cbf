"""Draw the README's chart, a small SVG.

It shows a hit's cost, who computes once, whose loads are old, how fast a model is read.
"""

from html import escape

WIDTH, BAR, GAP, LABEL = 860, 16, 6, 300
OURS, FLOOR, PEER, BROKEN, TEXT, QUIET = (
    "#2563eb",
    "#64748b",
    "#cbd5e1",
    "#dc2626",
    "#0f172a",
    "#64748b",
)


def svg(figures):
    """The whole picture; panels without figures are left out."""
    panels = [
        (("Hit of another client's 1 KiB entry on "
         "NFS"), "requests to the server; fewer is better", _hits(figures)),
        (("Eight cold callers on one key, two NFS "
         "clients"), "computations; one is what a cache is for", _computations(figures)),
        (("Two clients update one counter, with "
         "readers"), "acknowledged updates lost", _lost(figures)),
        (("Loads right after the other client's acknowledged "
         "save"), "older states, of all loads, while a reader has the file open", _stale(figures)),
        ("A 128 MiB model over NFS, into memory", "MiB/s; more is better", _rates(figures)),
    ]  # fmt: skip
    body, y = [], 0
    for title, unit, bars in panels:
        if not bars:
            continue
        y += 28
        body.append(_text(12, y, title, size=15, bold=True))
        body.append(_text(WIDTH - 12, y, unit, fill=QUIET, anchor="end"))
        y += 10
        longest = max((value for _, value, _ in bars if value), default=1)
        for name, value, text in bars:
            body += _bar(name.replace("`", ""), value, text, y, longest)
            y += BAR + GAP
    y += 8
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}"'
        f' height="{y}" role="img">'
    )
    return "\n".join(
        [head, f'<rect width="{WIDTH}" height="{y}" fill="#ffffff"/>', *body, "</svg>\n"]
    )


def _text(x, y, text, *, size=12.5, bold=False, fill=TEXT, anchor="start"):
    weight = ' font-weight="600"' if bold else ""
    family = "system-ui, Segoe UI, Helvetica, Arial, sans-serif"
    return (
        f'<text x="{x:.0f}" y="{y}" font-family="{family}" font-size="{size}" fill="{fill}"'
        f' text-anchor="{anchor}"{weight}>{escape(text)}</text>'
    )


def _bar(name, value, text, y, longest):
    ours = name.startswith("efsstate")
    colour = OURS if ours else FLOOR if name.startswith(("bare", "8 MiB")) else PEER
    width = max(2, (WIDTH - LABEL - 230) * (value or 0) / longest)
    yield _text(LABEL - 10, y + 12, name, bold=ours, anchor="end")
    if value is not None:
        yield (
            f'<rect x="{LABEL}" y="{y}" width="{width:.0f}" height="{BAR}" rx="2" fill="{colour}"/>'
        )
    yield _text(
        LABEL + (0 if value is None else width + 8),
        y + 12,
        text,
        bold=ours,
        fill=TEXT if value is not None else BROKEN,
    )


def _hits(figures):
    bars = [
        (f["subject"], f["requests"], f"{f['requests']:.3g}") for f in figures.rows("hit", "nfs")
    ]
    return bars + [
        (f["subject"], None, f"fails: {f['failed']}") for f in figures.rows("hits", "nfs")
    ]


def _computations(figures):
    bars = []
    for f in figures.rows("stampede", "nfs"):
        if "failed" in f:
            bars.append((f["subject"], None, f"fails: {f['failed']}"))
        else:
            errors = f", and {f['errors']} callers get an error" if f["errors"] else ""
            bars.append((f["subject"], f["computations"], f"{f['computations']}{errors}"))
    return bars


def _stale(figures):
    return [
        (f["subject"], f["open"], f"{f['open']} of {f['loads']}")
        for f in figures.rows("stale", "nfs")
    ]


def _lost(figures):
    rows = [f for f in figures.rows("updates", "nfs") if f["readers"]]
    return [
        (
            f["subject"],
            f["acknowledged"] - f["kept"],
            f"{f['acknowledged'] - f['kept']} of {f['acknowledged']}",
        )
        for f in rows
    ]


def _rates(figures):
    return [
        (f["subject"], f["rate"] / 2**20, f"{f['rate'] / 2**20:.0f}")
        if "rate" in f
        else (f["subject"], None, f"fails: {f['failed']}")
        for f in figures.rows("model", "nfs")
    ]
