"""`efsstate checkpoint rebase`: fence every owner from before a failover, and report states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from efsstate.checkpoints import rebasing
from efsstate.cli import completion, jobs, output
from efsstate.cli.output import Consent, Output, count_text
from efsstate.cli.places import folders, open_root
from efsstate.errors import EfsStateError
from efsstate.format import layout

if TYPE_CHECKING:
    from efsstate.checkpoints.rebasing import Rebased
    from efsstate.mount.files import Mount


@click.command("rebase")
@click.argument("names", nargs=-1, shell_complete=completion.checkpoint_name)
@click.option("--all", "is_all", is_flag=True, help="Rebase every checkpoint.")
@click.option(
    "--accept-older",
    is_flag=True,
    help="Where the newest state is damaged, go on from the one before it.",
)
@output.common
@output.deleting
def command(
    names: tuple[str, ...],
    is_all: bool,
    accept_older: bool,
    out: Output,
    root: str | None,
    consent: Consent,
) -> int:
    """After a failover or a restored backup, fence every owner from before, and check all states.

    Each checkpoint and shard of NAMES gets an epoch above all that may have been claimed before, so
    that no former owner can save; one that works on at this moment is fenced too. The newest state
    is read. Saves that were acknowledged after it may be missing; the last column tells where.
    A damaged newest state is left for the next claim to refuse. Exit code 1 if something is damaged
    or missing.
    """
    mount = open_root(root)
    if is_all == bool(names):
        raise click.UsageError("name checkpoints, or give --all for every one")
    chosen = _choose(mount, names)
    what = f"{count_text(len(chosen), 'checkpoint')} and fence every owner"
    is_agreed = consent(what, "rebase")
    if not is_agreed and not consent.dry_run:
        out.say("nothing was changed")
        nothing: dict[str, Any] = {"rows": [], "findings": [], "problems": []}
        out.document("checkpoint.rebase", root=mount.path, rebased=False, **nothing)
        return output.FINE
    rows, findings, problems = [], [], []
    for folder in chosen:
        try:
            name = jobs.whole_name(mount, folder)
            results = rebasing.rebase(
                mount, folder, accept_older=accept_older, dry_run=not is_agreed
            )
            for result in results:
                rows.append(_row(mount, name, result))
                findings += _findings(mount, result, accept_older=accept_older)
        except (OSError, EfsStateError, ValueError) as error:  # ValueError: not our folder
            problems.append(output.words(error))
    _print(out, rows)
    code = out.findings(findings)
    out.problems(problems)
    out.say(f"{'rebased' if is_agreed else 'would rebase'} {count_text(len(rows), 'folder')}")
    out.document(
        "checkpoint.rebase",
        root=mount.path,
        rebased=is_agreed,
        rows=rows,
        findings=findings,
        problems=problems,
    )
    return output.COULD_NOT_CHECK if problems else code


def _choose(mount: Mount, names: tuple[str, ...]) -> list[str]:
    """Return the folders of the checkpoints `names`, or of all."""
    if not names:
        return [f"{layout.CHECKPOINTS}/{name}" for name in folders(mount, layout.CHECKPOINTS, None)]
    try:
        return [jobs.locate(mount, name) for name in names]
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _row(mount: Mount, name: str, result: Rebased) -> dict[str, Any]:
    """Return the fields of one checkpoint or shard."""
    save = result.save
    _, _, shard = result.folder.removeprefix(f"{layout.CHECKPOINTS}/").partition("/s")
    is_job = shard and not name.endswith("]")
    return {
        "name": f"{name}[{shard}]" if is_job else name,
        "path": mount.path_of(result.folder),
        "before": result.before,
        "epoch": result.epoch,
        "finished": result.is_finished,
        "position": save.shown if save else "",
        "items": save.items if save else 0,
        "saved": save.created if save else None,
        "unknown": _unknown(result),
    }


def _unknown(result: Rebased) -> str:
    """Say which acknowledged saves cannot be known to be there."""
    if result.is_finished:
        return ""
    if result.is_count_missing:
        return "how many shards it had"
    if result.save is None:
        return "whether anything was saved"
    return "whether it was saved again later"


def _findings(mount: Mount, result: Rebased, *, accept_older: bool) -> list[dict[str, str]]:
    """Return a finding for each damage or missing save of one checkpoint or shard."""
    where = mount.path_of(result.folder)
    findings = []
    if result.damage:
        goes_on = accept_older and result.save is not None
        do = "it goes on from the state before" if goes_on else _REFUSED
        do = "give it again: shards(n)" if result.is_count_missing else do
        findings.append({"level": "error", "where": where, "what": result.damage, "do": do})
    if result.is_mark_wrong:
        what = "marked as finished, and its last save is missing"
        do = "the mark goes, and a worker does it again"
        findings.append({"level": "error", "where": where, "what": what, "do": do})
    if result.strays:
        saves = count_text(len(result.strays), "save")
        what = f"{saves} without a claim: newest {layout.generation_name(*result.strays[0])}"
        do = "they do not count; what they hold may have been acknowledged"
        findings.append({"level": "warning", "where": where, "what": what, "do": do})
    return findings


_REFUSED = "claims refuse it: restore the file, or pass --accept-older or accept_older=True"


def _print(out: Output, rows: list[dict[str, Any]]) -> None:
    out.table(
        ["name", "before>", "epoch>", "position", "items>", "saved", "cannot be known"],
        [
            [
                row["name"],
                str(row["before"]),
                str(row["epoch"]),
                output.plain(row["position"]) or "-",
                f"{row['items']:,}",
                output.time_text(row["saved"]),
                row["unknown"] or "-",
            ]
            for row in rows
        ],
    )
