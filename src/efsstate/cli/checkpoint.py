"""`efsstate checkpoint`: lists checkpoints, shows one, and breaks a claim."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from efsstate.cli import output
from efsstate.cli.inventory import Inventory
from efsstate.cli.output import Consent, Listing, Output
from efsstate.cli.places import Place, find, open_root
from efsstate.format import layout

if TYPE_CHECKING:
    from efsstate.mount.files import Mount

_KINDS = {
    "name": "text",
    "state": "text",
    "position": "text",
    "items": "count",
    "saves": "count",
    "age": "age",
    "size": "size",
}


@click.group("checkpoint")
def command() -> None:
    """List, show and break the claims of checkpoints."""


@command.command("ls")
@output.common
@output.listing
def ls(out: Output, root: str | None, rows: Listing) -> int:
    """List checkpoints: how far they are, who has them, when they saved.

    Columns for --filter and --sort: name, state (finished, claimed, waiting), position, items, saves, age, size.
    """
    mount = open_root(root)
    inventory = Inventory(mount, Place(layout.CHECKPOINTS, None, None))
    found = ({**row["status"], **row} for row in inventory.checkpoints())
    shown, _ = rows.of(found, _KINDS, sort="name")
    out.table(
        ["name", "state", "position", "items>", "saves>", "saved>", "size>", "owner"],
        [
            [
                row["name"],
                row["state"],
                row["position"] or "-",
                f"{row['items']:,}",
                f"{row['saves']:,}",
                output.age_text(row["age"]) + " ago",
                output.bytes_text(row["size"]),
                owner(row) if row["state"] == "claimed" else "-",
            ]
            for row in shown
        ],
    )
    out.problems(inventory.problems)
    dropped = ("status", "area", "idle", "schema")
    rows_out = [{key: value for key, value in row.items() if key not in dropped} for row in shown]
    out.document("checkpoint.ls", root=mount.path, rows=rows_out, problems=inventory.problems)
    return output.COULD_NOT_CHECK if inventory.problems else output.FINE


def owner(told: dict[str, Any]) -> str:
    """Who claimed it, in a few words."""
    from efsstate.checkpoints.claimant import sentence

    return sentence(told["owner"])


@command.command("show")
@click.argument("name")
@output.common
def show(name: str, out: Output, root: str | None) -> int:
    """Show one checkpoint: state, position, owner, and where it is."""
    return show_status(open_root(root), name, out)


def show_status(mount: Mount, name: str, out: Output) -> int:
    """Print what `Checkpoint.status` says."""
    told = _status(mount, name)
    state = "finished" if told["finished"] else "claimed" if told["claimed"] else "waiting"
    out.say(f"name      {name}")
    out.say(f"state     {state}")
    out.say(
        f"position  {output.plain(str(told['position'])) or '-'}, {told['items']:,} items, {told['saves']:,} saves"
    )
    out.say(f"saved     {output.time_text(told['saved'])}, {output.bytes_text(told['bytes'])}")
    out.say(f"epoch     {told['epoch']}, by {owner(told)}")
    out.say(f"path      {told['path']}")
    told["state_schema"] = told.pop("schema")
    out.document("checkpoint.show", root=mount.path, state=state, **told)
    return output.FINE


def _status(mount: Mount, name: str) -> dict[str, Any]:
    from efsstate.checkpoints.checkpoint import checkpoint

    try:
        job = checkpoint(name, root=mount.path)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    find(
        mount, f"{layout.CHECKPOINTS}/{layout.component(name)}"
    )  # a status would be that of nothing
    return dict(job.status())


def _last(told: dict[str, Any]) -> str:
    return f"the last was {owner(told)}" if told["epoch"] else "nobody ever claimed it"


@command.command("break")
@click.argument("name")
@output.common
@output.deleting
def break_(name: str, out: Output, root: str | None, consent: Consent) -> int:
    """Take the claim of NAME from whoever holds it: none of their later saves counts, and others may claim at once."""
    from efsstate.checkpoints.checkpoint import checkpoint

    mount = open_root(root)
    told = _status(mount, name)
    held = told["claimed"]
    what = f"the claim of {name}, " + (
        f"held by {owner(told)}" if held else f"which nobody holds ({_last(told)})"
    )
    if not consent(what):
        out.say(f"would break {what}" if consent.dry_run else "nothing was changed")
        out.document(
            "checkpoint.break",
            root=mount.path,
            name=name,
            broken=False,
            held=held,
            owner=told["owner"],
        )
        return output.FINE
    # Also where nobody has its lock: a holder that was cut off lost that, and goes on saving once it is back.
    before = checkpoint(name, root=mount.path).break_claim()
    out.say(
        f"broke {what}"
        if held
        else f"nobody held the claim of {name} ({_last(told)}): it can be claimed"
    )
    out.document(
        "checkpoint.break", root=mount.path, name=name, broken=True, held=held, owner=before
    )
    return output.FINE
