"""`efsstate stat`: where the space goes."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from efsstate.cli import output
from efsstate.cli.inventory import Inventory, total_folders
from efsstate.cli.output import Listing, Output
from efsstate.cli.places import locate, open_root
from efsstate.format import layout

_BAR = 24
_KINDS = {
    "area": "text",
    "name": "text",
    "entries": "count",
    "size": "size",
    "oldest": "age",
    "gone": "count",
}
_COLOURS = {layout.CACHE: "cyan", layout.CHECKPOINTS: "green", layout.MODELS: "magenta"}


@click.command("stat")
@click.argument("place", required=False)
@output.common
@output.listing
def command(place: str | None, out: Output, root: str | None, rows: Listing) -> int:
    """Show entries, bytes, the oldest, and what the next sweep takes, by area and namespace.

    Columns for --filter and --sort: area, name, entries, size, oldest, gone (what is expired or cleared).
    """
    mount = open_root(root)
    with out.progress("Looking", total_folders(mount)) as advance:
        inventory = Inventory(mount, locate(mount, place) if place is not None else None, advance)
        sums: dict[tuple[str, str], dict[str, Any]] = {}
        for row in inventory.rows():
            add(sums, row)
    total = sum(one["size"] for one in sums.values())
    shown, matched = rows.of(iter(sums.values()), _KINDS, sort="size")
    out.table(
        ["area", "name", "entries>", "size>", "oldest>", "to go>", "share>", ""],
        [
            [
                *cells(one),
                f"{100 * one['size'] / total if total else 0:.0f} %",
                bar(one["size"], total, one["area"]),
            ]
            for one in shown
        ],
    )
    entries = sum(one["entries"] for one in sums.values())
    gone = sum(one["gone"] for one in sums.values())
    out.say(
        f"{output.bytes_text(total)} in {entries} entries; the next sweep takes {gone}: efsstate gc"
    )
    if matched > len(shown):
        out.say(f"... and {matched - len(shown)} more rows")
    out.problems(inventory.problems)
    out.document(
        "stat",
        root=mount.path,
        size=total,
        entries=entries,
        gone=gone,
        rows=shown,
        problems=inventory.problems,
    )
    return output.COULD_NOT_CHECK if inventory.problems else output.FINE


def add(sums: dict[tuple[str, str], dict[str, Any]], row: dict[str, Any]) -> None:
    """Count a row in."""
    one = sums.setdefault(
        (row["area"], row["namespace"]),
        {
            "area": row["area"],
            "name": row["name"],
            "entries": 0,
            "size": 0,
            "oldest": 0.0,
            "gone": 0,
        },
    )
    one["entries"] += 1
    one["size"] += row["size"]
    one["oldest"] = max(one["oldest"], row["age"])
    one["gone"] += row["area"] == layout.CACHE and row["state"] != "live"


def cells(one: dict[str, Any]) -> list[Any]:
    """The row's texts."""
    return [
        Text(one["area"], style=_COLOURS[one["area"]]),
        one["name"],
        f"{one['entries']:,}",
        output.bytes_text(one["size"]),
        output.age_text(one["oldest"]),
        f"{one['gone']:,}" if one["gone"] else "-",
    ]


def bar(size: int, total: int, area: str) -> Text:
    """A bar as long as the row's part of the whole, in eighths of a character."""
    eighths = round(8 * _BAR * size / total) if total else 0
    full, rest = divmod(eighths, 8)
    return Text("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else ""), style=_COLOURS[area])
