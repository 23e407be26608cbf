"""`efsstate ls`: list the content of the root, one line each."""

from __future__ import annotations

from typing import Any

import click

from efsstate.cli import completion, output
from efsstate.cli.inventory import KINDS, Inventory
from efsstate.cli.output import Listing, Output
from efsstate.cli.places import locate, open_root

_MOST = 100


@click.command("ls")
@click.argument("place", required=False, shell_complete=completion.place)
@output.common
@output.listing
def command(place: str | None, out: Output, root: str | None, rows: Listing) -> int:
    """List the caches, checkpoints, models and datasets, a line each, or the content of PLACE.

    PLACE is cache, cache/NAMESPACE, checkpoints/NAME, a path as this command prints it, and so on:
    of a cache it lists the entries, of a job the shards, of a model the versions, of a dataset the
    parts and snapshots. Without --limit it lists the first 100. Columns for --filter and --sort:
    path, area, name, items, size, age (since the last change), idle (since the last use), state.
    """
    mount = open_root(root)
    where = locate(mount, place) if place is not None else None
    inventory = Inventory(mount, where)
    is_wide = where is None or where.folder is None
    listed = (
        inventory.summaries() if is_wide else [{"items": 1, **row} for row in inventory.contents()]
    )
    shown, matched = rows.of(listed, KINDS, sort="path", most=rows.limit or _MOST)
    out.table(
        ["path", "name", *(["items>"] if is_wide else []), "size>", "age>", "idle>", "state"],
        [_cells(row, is_wide=is_wide) for row in shown],
    )
    if matched > len(shown):
        out.say(f"... and {matched - len(shown)} more: --limit {matched}")
    for row in shown:
        row.pop("status", None)
    out.problems(inventory.problems)
    out.document("ls", root=mount.path, matched=matched, rows=shown, problems=inventory.problems)
    return output.COULD_NOT_CHECK if inventory.problems else output.FINE


def _cells(row: dict[str, Any], *, is_wide: bool) -> list[str]:
    return [
        row["path"],
        row["name"],
        *([f"{row['items']:,}"] if is_wide else []),
        output.bytes_text(row["size"]),
        output.age_text(row["age"]),
        output.age_text(row["idle"]),
        row["state"],
    ]
