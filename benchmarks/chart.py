"""The chart for the README: requests a hit and a put cost, and how fast a model is read, as a small SVG."""

from html import escape

WIDTH, BAR, GAP, LABEL = 860, 18, 7, 300
OURS, FLOOR, PEER, BROKEN = "#2563eb", "#94a3b8", "#cbd5e1", "#dc2626"


def svg(figures):
    """The whole picture; panels without figures are left out."""
    panels = [
        ("Requests to the server for a hit of another client's entry", _requests(figures, "hit", "hits")),
        ("Requests to the server for a miss: look, (claim,) compute, put", _requests(figures, "miss", "writes")),
        ("Reading a 64 MiB model over NFS, MiB/s", _rates(figures)),
    ]
    body, y = [], 10
    for title, bars in panels:
        if bars:
            y += 24
            body.append(f'<text x="10" y="{y}" font-weight="600" font-size="15">{escape(title)}</text>')
            y += 12
            longest = max(value or 0 for _, value, _, _ in bars)
            for name, value, text, colour in bars:
                body += _bar(name, value, text, colour, y, longest)
                y += BAR + GAP
            y += 10
    style = "text{font-family:system-ui,'Segoe UI',Helvetica,Arial,sans-serif;fill:#0f172a;font-size:13px}.n{text-anchor:end}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img">\n<style>{style}</style>\n<rect width="{WIDTH}" height="{y}" fill="#ffffff"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _bar(name, value, text, colour, y, longest):
    width = 0 if value is None else max(2, (WIDTH - LABEL - 120) * value / longest)
    weight = ' font-weight="600"' if colour == OURS else ""
    yield f'<text class="n" x="{LABEL - 10}" y="{y + 13}"{weight}>{escape(name.replace("`", ""))}</text>'
    if value is not None:
        yield f'<rect x="{LABEL}" y="{y}" width="{width:.0f}" height="{BAR}" rx="2" fill="{colour}"/>'
    fill = f' style="fill:{BROKEN}"' if value is None else ""
    yield f'<text x="{LABEL + width + 8:.0f}" y="{y + 13}"{weight}{fill}>{escape(text)}</text>'


def _colour(name):
    return OURS if name.startswith("efsstate") else FLOOR if name.startswith(("bare", "8 MiB")) else PEER


def _requests(figures, row, failed):
    bars = []
    for f in figures.rows(row, "nfs"):
        bars.append((f["subject"], f.get("requests"), f"{f['requests']:.3g}", _colour(f["subject"])))
    for f in figures.rows(failed, "nfs"):
        bars.append((f["subject"], None, f"fails: {f['failed']}", BROKEN))
    return bars


def _rates(figures):
    return [
        (f["subject"], f.get("rate"), f"{f['rate'] / 2**20:.0f}", _colour(f["subject"]))
        if "rate" in f
        else (f["subject"], None, f"fails: {f['failed']}", BROKEN)
        for f in figures.rows("model", "nfs")
    ]
