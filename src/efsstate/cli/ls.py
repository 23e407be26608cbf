"""`efsstate ls`: list the content of the root, one line each."""

from __future__ import annotations

import click

from efsstate.cli import output
from efsstate.cli.inventory import KINDS, Inventory
from efsstate.cli.output import Listing, Output
from efsstate.cli.places import locate, open_root

_MOST = 100


@click.command("ls")
@click.argument("place", required=False)
@output.common
@output.listing
def command(place: str | None, out: Output, root: str | None, rows: Listing) -> int:
    """List cache entries, checkpoints, model versions and datasets: all, or those at PLACE.

    PLACE is cache, cache/NAMESPACE, checkpoints/NAME, a path as this command prints it, and so on.
    Without --limit it lists the first 100. Columns for --filter and --sort: path, area, name, size,
    age, idle (since the last use), state.
    """
    mount = open_root(root)
    inventory = Inventory(mount, locate(mount, place) if place is not None else None)
    limit = rows.limit or _MOST
    shown, matched = rows.of(inventory.rows(), KINDS, sort="path", most=limit)
    out.table(
        ["path", "name", "size>", "age>", "idle>", "state"],
        [
            [
                row["path"],
                row["name"],
                output.bytes_text(row["size"]),
                output.age_text(row["age"]),
                output.age_text(row["idle"]),
                row["state"],
            ]
            for row in shown
        ],
    )
    if matched > len(shown):
        out.say(f"... and {matched - len(shown)} more: --limit {matched}")
    for row in shown:
        row.pop("status", None)
    out.problems(inventory.problems)
    out.document("ls", root=mount.path, matched=matched, rows=shown, problems=inventory.problems)
    return output.COULD_NOT_CHECK if inventory.problems else output.FINE
