"""`efsstate stat`: show where the space goes."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from efsstate.cli import completion, output
from efsstate.cli.inventory import Inventory, count_folders
from efsstate.cli.output import Listing, Output, count_text
from efsstate.cli.places import locate, open_root
from efsstate.format import dataset_layout, layout, record_layout

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
_COLOURS |= {dataset_layout.DATASETS: "yellow", record_layout.RECORDS: "blue"}


@click.command("stat")
@click.argument("place", required=False, shell_complete=completion.place)
@output.common
@output.listing
def command(place: str | None, out: Output, root: str | None, rows: Listing) -> int:
    """Show entries, bytes, the oldest entry, and how many the next sweep removes, by namespace.

    Columns for --filter and --sort: area, name, entries, size, oldest, gone (expired or cleared).
    """
    mount = open_root(root)
    with out.progress("Reading", count_folders(mount)) as advance:
        inventory = Inventory(mount, locate(mount, place) if place is not None else None, advance)
        sums: dict[tuple[str, str], dict[str, Any]] = {}
        for row in inventory.rows():
            add(sums, row)
    total = sum(row["size"] for row in sums.values())
    shown, matched = rows.of(iter(sums.values()), _KINDS, sort="size")
    out.table(
        ["area", "name", "entries>", "size>", "oldest>", "to go>", "share>", ""],
        [
            [
                *cells(row),
                f"{100 * row['size'] / total if total else 0:.0f} %",
                bar(row["size"], total, row["area"]),
            ]
            for row in shown
        ],
    )
    entries = sum(row["entries"] for row in sums.values())
    gone = sum(row["gone"] for row in sums.values())
    out.say(
        f"{output.bytes_text(total)} in {count_text(entries, 'entry', 'entries')}; the next sweep"
        f" removes {gone:,}: efsstate gc"
    )
    if matched > len(shown):
        out.say(f"... and {count_text(matched - len(shown), 'more row')}")
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
    """Add a row of the inventory to the sum of its namespace."""
    total = sums.setdefault(
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
    total["entries"] += 1
    total["size"] += row["size"]
    total["oldest"] = max(total["oldest"], row["age"])
    total["gone"] += row["area"] == layout.CACHE and row["state"] != "live"


def cells(row: dict[str, Any]) -> list[Any]:
    """Return the texts of a row."""
    return [
        Text(row["area"], style=_COLOURS[row["area"]]),
        row["name"],
        f"{row['entries']:,}",
        output.bytes_text(row["size"]),
        output.age_text(row["oldest"]),
        f"{row['gone']:,}" if row["gone"] else "-",
    ]


def bar(size: int, total: int, area: str) -> Text:
    """Return a bar as long as the row's share of the whole, in eighths of a character."""
    eighths = round(8 * _BAR * size / total) if total else 0
    full, rest = divmod(eighths, 8)
    return Text("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else ""), style=_COLOURS[area])
