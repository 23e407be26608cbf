"""Render the report's document as one page of HTML that needs nothing else.

The page's Content-Security-Policy lets no request out, and runs no script but its own two, which it
names by their digests: names on the mount are text here, whatever they contain.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from efsstate.planning.text import duration, size

_HERE = os.path.dirname(__file__)
Row = Sequence[str]
_LONG = 40  # characters


@functools.cache
def _asset(name: str) -> str:
    with open(f"{_HERE}/{name}", encoding="utf-8") as file:
        return file.read()


def render(document: dict[str, Any]) -> str:
    """Return the page of a document, whose parts `efsstate.cli.report_content` makes.

    `activity`, `plan` and `history` may be None: their section says how to have it.
    """
    scripts = [_asset("echarts/echarts.min.js"), _asset("page.js")]
    digests = " ".join(f"'sha256-{_digest(text)}'" for text in scripts)
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {digests}"
    # `<` is escaped: a name that has `</script>` in it must not end the element.
    data = json.dumps(document, separators=(",", ":")).replace("<", "\\u003c")
    title = f"efsstate: {document['title']}"
    sections = [_space, _activity, _checkpoints, _models, _datasets, _sweep, _cost]
    body = "\n".join(section(document) for section in sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_asset('page.css')}</style>\n</head>\n<body>\n"
        f'{_header(document, title)}\n<main id="main">\n{body}\n</main>\n'
        f'<script type="application/json" id="data">{data}</script>\n'
        + "".join(f"<script>{text}</script>\n" for text in scripts)
        + "</body>\n</html>\n"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


_SECTIONS = {
    "space": "Where the space goes",
    "activity": "Hit rates and latencies",
    "checkpoints": "Checkpoints",
    "models": "Models",
    "datasets": "Datasets",
    "sweep": "The sweep",
    "cost": "Credits and cost",
}


def _header(document: dict[str, Any], title: str) -> str:
    links = "".join(f'<li><a href="#{name}">{text}</a></li>' for name, text in _SECTIONS.items())
    states = document["checkpoint_states"]
    tiles = {
        "stored": size(document["size"]),
        "entries": f"{document['entries']:,}",
        "checkpoints": _of(states.get("finished", 0), document["checkpoints_total"], "finished"),
        "models": f"{document['models_total']:,}",
        "datasets": f"{document['datasets_total']:,}",
    }
    activity, plan = document["activity"], document["plan"]
    if activity is not None and activity["caches"]:
        tiles["hit rate"] = _percent(_total_rate(activity["caches"]))
    if plan is not None:
        holding = [m for m in plan["modes"] if not m["problems"] and "one zone" not in m["mode"]]
        if holding:
            best = min(holding, key=lambda mode: mode["month"])
            tiles[f"a month, {best['mode']}"] = _dollars(best["month"])
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in tiles.items()
    )
    problems = [f"Could not be read: {text}" for text in document["problems"]]
    return (
        '<a class="skip" href="#main">Skip to the content</a>\n'
        f"<header><h1>{escape(title)}</h1>\n"
        f'<p class="quiet">{escape(document["root"])}, {_moment(document["now"])}</p>\n'
        + "".join(f'<p class="bad">{escape(text)}</p>' for text in problems[:20])
        + f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n<dl class="tiles">{items}</dl>'
        "</header>"
    )


def _section(name: str, *parts: str) -> str:
    text = "\n".join(part for part in parts if part)
    heading = f'<h2 id="{name}-heading">{_SECTIONS[name]}</h2>'
    return f'<section id="{name}" aria-labelledby="{name}-heading">\n{heading}\n{text}\n</section>'


def _paragraph(text: str, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{escape(text)}</p>"


def _chart(name: str, caption: str, *, low: bool = False) -> str:
    """Return the place of a chart; the caption is its text for screen readers too."""
    kind = "chart low" if low else "chart"
    text = escape(caption)
    return (
        f'<figure><figcaption>{text}</figcaption><div class="{kind}" data-chart="{name}"'
        f' role="img" aria-label="{text} The table has the figures."></div></figure>'
    )


def _table(name: str, caption: str, columns: Sequence[str], rows: Iterable[Row]) -> str:
    """Return a table; a column that ends in `>` has numbers."""
    kinds = [' class="number"' if column.endswith(">") else "" for column in columns]
    head = "".join(
        f'<th scope="col"{kind}>{escape(column.removesuffix(">"))}</th>'
        for kind, column in zip(kinds, columns, strict=True)
    )
    body = ""
    for first, *rest in rows:
        cells = "".join(_data(value, kind) for kind, value in zip(kinds[1:], rest, strict=True))
        body += f'<tr><th scope="row">{_cell(first)}</th>{cells}</tr>\n'
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table id="{name}"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"
    )


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def _data(value: str, kind: str) -> str:
    """Return a cell; a long text gets room, so that it does not become a column of words."""
    if len(value) > _LONG and not kind and not isinstance(value, Markup):
        kind = ' class="long"'
    return f"<td{kind}>{_cell(value)}</td>"


def _cell(value: str) -> str:
    return value if isinstance(value, Markup) else escape(value)


def _space(document: dict[str, Any]) -> str:
    rows, total = document["space"], document["size"]
    if not rows:
        return _section("space", _paragraph("Nothing is stored yet."))
    cells = [
        [
            row["name"],
            row["area"],
            f"{row['entries']:,}",
            size(row["size"]),
            _percent(row["size"] / total if total else 0.0),
            duration(row["oldest"]),
        ]
        for row in rows
    ]
    columns = ["name", "area", "entries>", "size>", "share>", "oldest>"]
    return _section(
        "space",
        _chart("space", "Bytes by area, and by cache, checkpoint, model and dataset."),
        _table("space-table", "What is stored", columns, cells),
    )


def _activity(document: dict[str, Any]) -> str:
    activity = document["activity"]
    if activity is None:
        hint = (
            "No events were given. Record them with efsstate.metrics.record or metrics.emf, and"
            " pass the file: efsstate report --events FILE."
        )
        return _section("activity", _paragraph(hint, "quiet"))
    caches = activity["caches"]
    rows = [
        [
            row["name"],
            _percent(row["rate"]),
            f"{row['memory']:,}",
            f"{row['mount']:,}",
            f"{row['stale']:,}",
            f"{row['misses']:,}",
            f"{row['puts']:,}",
            f"{row['errors']:,}",
            _milliseconds(row["read"]["p50"]),
            _milliseconds(row["read"]["p95"]),
            _milliseconds(row["compute"]["p50"]),
            _milliseconds(row["wait"]["p95"]),
        ]
        for row in caches[:200]
    ]
    columns = [
        "cache", "hit rate>", "in memory>", "on the mount>", "stale>", "misses>", "puts>",
        "errors>", "read, median>", "read, 95 %>", "computation, median>", "wait, 95 %>",
    ]  # fmt: skip
    text = f"{activity['lines']:,} events or lines of metrics"
    others = activity["other_lines"]
    text += f"; {others:,} other lines were passed over." if others else "."
    times = [("save", activity["saves"]), ("model load", activity["loads"])]
    timed = [
        [name, f"{row['count']:,}", *(_milliseconds(row[key]) for key in ("p50", "p95", "p99"))]
        for name, row in times
        if row["count"]
    ]
    can_read = any(row["read"]["count"] for row in caches)
    return _section(
        "activity",
        _paragraph(text, "quiet"),
        _chart("hits", "Hits and misses by cache.") if caches else "",
        _chart("rates", "Hit rate over time.", low=True) if activity["rates"] else "",
        _chart("latency", "Time of a hit on the mount, by cache.") if can_read else "",
        _table("activity-table", "Caches", columns, rows) if rows else "",
        _more(len(caches), len(rows)),
        _table(
            "times-table",
            "Other operations",
            ["operation", "count>", "median>", "95 %>", "99 %>"],
            timed,
        )
        if timed
        else "",
    )


def _checkpoints(document: dict[str, Any]) -> str:
    rows, total = document["checkpoints"], document["checkpoints_total"]
    if not rows:
        return _section("checkpoints", _paragraph("There are no checkpoints."))
    states = ", ".join(f"{count:,} {name}" for name, count in document["checkpoint_states"].items())
    cells = [
        [
            row["name"],
            row["state"],
            _progress(row),
            f"{row['items']:,}",
            f"{row['saves']:,}",
            f"{row['attempts']:,}" if row["attempts"] > 1 else "-",
            f"{row['skipped']:,}" if row["skipped"] else "-",
            size(row["size"]),
            f"{duration(row['age'])} ago",
        ]
        for row in rows
    ]
    columns = [
        "checkpoint", "state", "progress", "items>", "saves>", "attempts>", "skipped>", "size>",
        "last saved>",
    ]  # fmt: skip
    return _section(
        "checkpoints",
        _paragraph(f"{total:,} in all: {states}."),
        _table("checkpoints-table", "The newest first", columns, cells),
        _more(total, len(rows)),
    )


def _progress(row: dict[str, Any]) -> Markup | str:
    """Return a bar of the shards that are done, else the position."""
    shards = row["shards"]
    if shards is None:
        return str(row["position"])[:80] or "-"
    text = f"{shards['done']:,} of {shards['total']:,} shards"
    return Markup(
        f'<progress max="{shards["total"]}" value="{shards["done"]}" aria-label="{text}">'
        f"</progress> {text}"
    )


def _models(document: dict[str, Any]) -> str:
    rows = document["models"]
    if not rows:
        return _section("models", _paragraph("There are no models."))
    cells = [
        [row["name"], row["version"] or "-", row["state"], size(row["size"]), duration(row["age"])]
        for row in rows
    ]
    columns = ["model", "version", "state", "size>", "age>"]
    return _section(
        "models",
        _table("models-table", "Versions of each model", columns, cells),
        _more(document["versions_total"], len(rows)),
    )


def _datasets(document: dict[str, Any]) -> str:
    rows = document["datasets"]
    if not rows:
        return _section("datasets", _paragraph("There are no datasets."))
    cells = [[row["name"], size(row["size"]), duration(row["age"])] for row in rows]
    return _section(
        "datasets",
        _table("datasets-table", "The largest first", ["dataset", "size>", "newest part>"], cells),
        _more(document["datasets_total"], len(rows)),
    )


def _sweep(document: dict[str, Any]) -> str:
    going, activity = document["going"], document["activity"]
    count = sum(row["entries"] for row in going.values())
    parts = [
        _paragraph(f"The next sweep removes {_plural(count, 'cache entry', 'cache entries')}.")
    ]
    if going:
        cells = [
            [reason, f"{row['entries']:,}", size(row["bytes"])] for reason, row in going.items()
        ]
        parts.append(
            _table("going-table", "What it removes", ["reason", "entries>", "size>"], cells)
        )
    sweeps = activity["sweeps"] if activity is not None else []
    if sweeps:
        parts.append(_chart("sweeps", "Files that each sweep removed, and bytes that it freed."))
        cells = [
            [
                _moment(row["time"]) if row["time"] else f"run {place}",
                f"{row['removed']:,}",
                size(row["removed_bytes"]),
                f"{row['looked']:,}",
                f"{row['errors']:,}",
                ", ".join(f"{key} {value:,}" for key, value in row["reasons"].items()) or "-",
            ]
            for place, row in enumerate(sweeps, 1)
        ]
        columns = ["sweep", "removed>", "freed>", "looked at>", "errors>", "reasons"]
        parts.append(_table("sweeps-table", "Sweeps that were recorded", columns, cells))
    elif activity is not None:
        parts.append(_paragraph("No sweep was recorded.", "quiet"))
    return _section("sweep", *parts)


def _cost(document: dict[str, Any]) -> str:
    plan, history = document["plan"], document["history"]
    if plan is None:
        hint = (
            "No workload was given: efsstate report --plan plan.toml, or --file-system fs-… for"
            " the history of a file system."
        )
        return _section("cost", _paragraph(hint, "quiet"))
    advice = "".join(f"<li>{escape(text)}</li>" for text in plan["advice"])
    names = [name for mode in plan["modes"] for name in mode["items"]]
    items = [
        name
        for name in dict.fromkeys(names)
        if any(mode["items"].get(name) != 0 for mode in plan["modes"] if name in mode["items"])
    ]
    cells = [
        [
            mode["mode"],
            _dollars(mode["month"]),
            *(_dollars(mode["items"].get(name, 0.0)) for name in items),
            "; ".join(mode["problems"]) or "holds",
        ]
        for mode in plan["modes"]
    ]
    others = [
        [row["service"], "-" if row["month"] is None else _dollars(row["month"]), row["reason"]]
        for row in plan["others"]
    ]
    columns = ["mode", "a month>", *(f"{name}>" for name in items), "verdict"]
    source = f"Rates of {plan['region']}, read in {plan['rates_read']} ({plan['rates_source']})"
    return _section(
        "cost",
        f'<ul class="advice">{advice}</ul>',
        _chart("cost", "A month's cost in each throughput mode, by item."),
        _table("cost-table", "A month of 30 days, in dollars", columns, cells),
        _table("others-table", "The same work elsewhere", ["service", "a month>", "note"], others),
        _chart("credits", "Burst credits over a year in bursting mode.", low=True),
        _credits(plan),
        _history(history) if history is not None else "",
        _paragraph(f"{source}. No price was checked against a bill.", "quiet"),
    )


def _credits(plan: dict[str, Any]) -> str:
    """Return the credits of the first day of each month, so to speak: every 30 days."""
    days = plan["credits_by_day"]
    cells = [[f"day {day + 1}", size(days[day])] for day in range(0, len(days), MONTH)]
    columns = ["after", "credits>"]
    return _table("credits-table", "Burst credits, every 30 days", columns, cells)


MONTH = 30  # days


def _history(history: dict[str, Any]) -> str:
    cells = [
        [
            time.strftime("%Y-%m-%d", time.gmtime(row["time"])),
            size(row["metered"]),
            "-" if row["balance"] is None else size(row["balance"]),
            _dollars(row["cost"]),
        ]
        for row in history["days"]
    ]
    columns = ["day from", "metered>", "least credits>", "cost in Elastic mode>"]
    caption = f"The last days of {history['file_system']}, from CloudWatch"
    return (
        f"<h3>The history of {escape(history['file_system'])}</h3>"
        + _paragraph(f"{history['gaps']:,} of {history['minutes']:,} minutes have no data.")
        + _chart("days", "Cost in Elastic mode and least credits, by day.")
        + _table("days-table", caption, columns, cells)
    )


def _more(total: int, shown: int) -> str:
    return _paragraph(f"… and {total - shown:,} more.", "quiet") if total > shown else ""


def _plural(count: int, singular: str, plural: str) -> str:
    return f"{count:,} {singular if count == 1 else plural}"


def _of(count: int, total: int, what: str) -> str:
    return f"{total:,} ({count:,} {what})" if total else "0"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.3g} ms"


def _dollars(value: float | None) -> str:
    return "unknown" if value is None else f"${value:,.2f}"


def _moment(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(when))


def _total_rate(caches: list[dict[str, Any]]) -> float | None:
    hits = sum(row["memory"] + row["mount"] + row["stale"] for row in caches)
    asked = hits + sum(row["misses"] for row in caches)
    return hits / asked if asked else None
