"""`efsstate checkpoint`: list and show checkpoints; break, reset, cancel, finish or rebase one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from efsstate.checkpoints.checkpoint import checkpoint
from efsstate.checkpoints.claimant import sentence
from efsstate.checkpoints.protocol import CheckpointFolder
from efsstate.cli import completion, jobs, output, rebase
from efsstate.cli.inventory import Inventory
from efsstate.cli.lookup import find, is_folder
from efsstate.cli.output import Consent, Listing, Output, count_text
from efsstate.cli.places import Place, open_root
from efsstate.cli.values import describe, shorten
from efsstate.errors import EfsStateError
from efsstate.format import layout

if TYPE_CHECKING:
    from collections.abc import Callable

    from efsstate.checkpoints.checkpoint import Checkpoint
    from efsstate.mount.files import Mount

_KINDS = {
    "name": "text",
    "state": "text",
    "position": "text",
    "items": "count",
    "saves": "count",
    "attempts": "count",
    "skipped": "count",
    "age": "age",
    "size": "size",
}


@click.group("checkpoint", cls=output.Group)
def command() -> None:
    """List and show checkpoints; break, reset, cancel or finish one; rebase after a failover.

    A shard is named after its job: `efsstate checkpoint show 'nightly[3]'`.
    """


@command.command("ls")
@output.common
@output.listing
def ls(out: Output, root: str | None, rows: Listing) -> int:
    """List checkpoints: how far they are, who claimed them, when they saved.

    Columns for --filter and --sort: name, state (finished, claimed, waiting), position, items,
    saves, attempts (claims since the position last moved), skipped (items), age, size.
    """
    mount = open_root(root)
    inventory = Inventory(mount, Place(layout.CHECKPOINTS, None, None))
    merged = ({**row["status"], **row} for row in inventory.checkpoints())
    shown, _ = rows.of(merged, _KINDS, sort="name")
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
                sentence(row["owner"]) if row["state"] == "claimed" and row["owner"] else "-",
            ]
            for row in shown
        ],
    )
    out.problems(inventory.problems)
    dropped = ("status", "area", "idle", "schema")
    entries = [{key: row[key] for key in row if key not in dropped} for row in shown]
    out.document("checkpoint.ls", root=mount.path, rows=entries, problems=inventory.problems)
    return output.COULD_NOT_CHECK if inventory.problems else output.FINE


@command.command("show")
@click.argument("name", shell_complete=completion.checkpoint_name)
@click.option("--state", is_flag=True, help="Also print the newest saved state.")
@output.common
def show(name: str, state: bool, out: Output, root: str | None) -> int:
    """Show the checkpoint NAME: its state, position and owner, and where it is."""
    mount = open_root(root)
    return show_status(mount, _locate(mount, name), out, with_state=state)


def show_status(mount: Mount, folder: str, out: Output, *, with_state: bool = False) -> int:
    """Print how far the checkpoint in `folder` is."""
    find(mount, folder)  # a status would be that of nothing
    status = jobs.status(mount, folder)
    items, saves = count_text(status["items"], "item"), count_text(status["saves"], "save")
    out.say(f"name      {status['name']}")
    out.say(f"state     {status['state']}")
    out.say(f"position  {output.plain(str(status['position'])) or '-'}, {items}, {saves}")
    out.say(f"saved     {output.time_text(status['saved'])}, {output.bytes_text(status['bytes'])}")
    if status["shards"] is None:
        out.say(f"epoch     {status['epoch']}, by {sentence(status['owner'])}")
    else:
        shards = status["shards"]
        done = f"{shards['done']:,} of {shards['total']:,} done"
        out.say(f"shards    {done}, {shards['claimed']:,} claimed")
    if status["attempts"] > 1 or status["skipped"]:
        attempts = count_text(status["attempts"], "claim")
        skipped = count_text(status["skipped"], "item")
        out.say(f"attempts  {attempts} since the position last moved; {skipped} skipped")
    out.say(f"path      {status['path']}")
    status["state_schema"] = status.pop("schema")
    if with_state:
        value, text = describe(jobs.read_state(mount, folder)[0])
        out.say(f"value     {shorten(text)}")
        status["value"] = value
    out.document("checkpoint.show", root=mount.path, **status)
    return output.FINE


def _locate(mount: Mount, name: str) -> str:
    """Return the folder of the checkpoint NAME; a path that `ls` prints will do too."""
    path = name.removeprefix(f"{layout.CHECKPOINTS}/")
    try:
        return jobs.locate(mount, path if path != name else name)
    except FileNotFoundError:
        if path != name and layout.is_component(path) and is_folder(mount, name):
            return name
        raise
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _open(mount: Mount, folder: str, typed: str) -> Checkpoint[Any]:
    """Return the checkpoint or shard in `folder`, which was located by the name `typed`."""
    is_shard = folder.count("/") == 2
    above, _, shard = folder.rpartition("/s") if is_shard else (folder, "", "")
    job: Checkpoint[Any] = checkpoint(jobs.opening_name(mount, above, typed), root=mount.path)
    if not is_shard:
        return job
    status = jobs.status(mount, above)
    return job.shards(status["shards"]["total"]).shard(int(shard))


def _last(status: dict[str, Any]) -> str:
    if not status["epoch"]:
        return "it was never claimed"
    return f"the last claim was by {sentence(status['owner'])}"


@command.command("break")
@click.argument("name", shell_complete=completion.checkpoint_name)
@output.common
@output.deleting
def break_(name: str, out: Output, root: str | None, consent: Consent) -> int:
    """Fence the owner of NAME: none of its later saves counts, and others may claim at once."""
    mount = open_root(root)
    folder = _locate(mount, name)
    status = jobs.status(mount, folder)
    is_held = status["claimed"] and status["shards"] is None
    owner = f"held by {sentence(status['owner'])}" if is_held else f"not held ({_last(status)})"
    what = f"the claim of {name}, {owner}"
    fields = {"root": mount.path, "name": name, "held": is_held, "owner": status["owner"]}
    if not consent(what, "break"):
        out.say(f"would break {what}" if consent.dry_run else "nothing was changed")
        out.document("checkpoint.break", **fields, broken=False)
        return output.FINE
    # Also if the lock is free: an owner that was cut off lost it, and goes on saving once it is
    # back.
    fields["owner"] = _open(mount, folder, name).break_claim()
    # MUT: a-break-is-reported-if-there-is-a-new-epoch
    is_broken = CheckpointFolder(mount, folder).list().top > status["epoch"]
    if is_held and not is_broken:
        raise EfsStateError(f"{mount.path_of(folder)}: not fenced; it was removed meanwhile")
    out.say(
        f"broke {what}"
        if is_held
        else f"the claim of {name} was not held ({_last(status)}); it can be claimed"
    )
    out.document("checkpoint.break", **fields, broken=is_broken)
    return output.FINE


def _change(
    verb: str, name: str, out: Output, root: str | None, consent: Consent, act: Callable[..., None]
) -> int:
    """Do `act` to the checkpoint NAME after a yes."""
    mount = open_root(root)
    folder = _locate(mount, name)
    status = jobs.status(mount, folder)
    if status["shards"] is not None or folder.count("/") == 2:
        raise click.UsageError(
            f"{name}: {verb} works on a checkpoint without shards; its program can reset a job"
        )
    items = count_text(status["items"], "item")
    fields = {"root": mount.path, "name": status["name"], "before": status["state"]}
    if not consent(f"the present state of {name} ({status['state']}, {items})", verb):
        out.say(f"would {verb} {name}" if consent.dry_run else "nothing was changed")
        out.document(f"checkpoint.{verb}", **fields, done=False)
        return output.FINE
    act(_open(mount, folder, name))
    out.say(f"{name}: {verb} done")
    out.document(f"checkpoint.{verb}", **fields, done=True)
    return output.FINE


@command.command("reset")
@click.argument("name", shell_complete=completion.checkpoint_name)
@output.common
@output.deleting
def reset(name: str, out: Output, root: str | None, consent: Consent) -> int:
    """Start NAME over: nothing that it saved or finished counts any more.

    Refused while it is claimed; `break` it first.
    """
    return _change("reset", name, out, root, consent, lambda job: job.reset())


@command.command("finish")
@click.argument("name", shell_complete=completion.checkpoint_name)
@output.common
@output.deleting
def finish(name: str, out: Output, root: str | None, consent: Consent) -> int:
    """Mark NAME as finished in its present state, so that no call goes on with it.

    Refused while it is claimed; `cancel` fences its owner first.
    """
    return _change("finish", name, out, root, consent, _finish)


@command.command("cancel")
@click.argument("name", shell_complete=completion.checkpoint_name)
@output.common
@output.deleting
def cancel(name: str, out: Output, root: str | None, consent: Consent) -> int:
    """Fence the owner of NAME, and mark it as finished in its present state."""

    def fence_and_finish(job: Checkpoint[Any]) -> None:
        job.break_claim()
        _finish(job)

    return _change("cancel", name, out, root, consent, fence_and_finish)


def _finish(job: Checkpoint[Any]) -> None:
    with job:
        if not job.finished:
            job.finish(job.result)


command.add_command(rebase.command)
