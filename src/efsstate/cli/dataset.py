"""`efsstate dataset`: list, show, freeze, verify and remove shared training data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from efsstate.cli import completion, output
from efsstate.errors import CorruptEntryError, EfsStateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from efsstate.datasets.dataset import Dataset


_ADD_AGAIN = "add it again under another key, and freeze a new snapshot"
_NOT_TOLD = "damaged, or signed with another key: run this with the functions' EFSSTATE_SIGNING_KEY"


@click.group(cls=output.Group)
def command() -> None:
    """List, freeze, verify and remove shared training data."""


@command.command()
@output.common
def ls(out: output.Output, root: str | None) -> int:
    """List the datasets with their parts, sizes and snapshots."""
    from efsstate.datasets import catalog

    rows: list[list[Any]] = []
    entries: list[dict[str, Any]] = []
    for name in catalog.names(root=root):
        dataset = _open(name, root)
        parts, snapshots = dataset.parts(), dataset.snapshots()
        size = sum(part.size for part in parts)
        rows.append([name, str(len(parts)), output.bytes_text(size), str(len(snapshots))])
        entries.append({"name": name, "parts": len(parts), "bytes": size, "snapshots": snapshots})
    out.table(["dataset", "parts>", "size>", "snapshots>"], rows)
    out.document("dataset.ls", datasets=entries)
    return output.FINE


@command.command()
@click.argument("name", shell_complete=completion.dataset_name)
@click.argument("snapshot", required=False)
@output.common
def show(out: output.Output, root: str | None, name: str, snapshot: str | None) -> int:
    """Show the snapshots of dataset NAME, or the parts of one SNAPSHOT."""
    dataset = _existing(name, root)
    if snapshot is not None:
        frozen = _usage(dataset.at, snapshot)
        parts = [{"name": part.name, "bytes": part.size} for part in frozen]
        out.table(["part", "size>"], [[p["name"], output.bytes_text(p["bytes"])] for p in parts])
        out.document("dataset.show", name=name, snapshot=snapshot, parts=parts)
        return output.FINE
    rows: list[list[Any]] = []
    entries: list[dict[str, Any]] = []
    problems: list[str] = []
    for each in dataset.snapshots():
        try:
            frozen = dataset.at(each)
        except (EfsStateError, OSError) as error:
            problems.append(output.words(error))
            continue
        rows.append([each, str(len(frozen)), output.bytes_text(frozen.bytes)])
        entries.append({"name": each, "parts": len(frozen), "bytes": frozen.bytes})
    out.table(["snapshot", "parts>", "size>"], rows)
    out.problems(problems)
    out.document("dataset.show", name=name, snapshots=entries, problems=problems)
    return output.COULD_NOT_CHECK if problems else output.FINE


@command.command()
@click.argument("name", shell_complete=completion.dataset_name)
@click.argument("snapshot")
@output.common
def freeze(out: output.Output, root: str | None, name: str, snapshot: str) -> int:
    """Make SNAPSHOT of the parts of dataset NAME, unless there is one of that name."""
    frozen = _usage(_existing(name, root).freeze, snapshot)
    out.say(f"{name} {snapshot}: {len(frozen)} parts, {output.bytes_text(frozen.bytes)}")
    out.document(
        "dataset.freeze", name=name, snapshot=snapshot, parts=len(frozen), bytes=frozen.bytes
    )
    return output.FINE


@command.command()
@click.argument("name", shell_complete=completion.dataset_name)
@click.argument("snapshot")
@output.common
def verify(out: output.Output, root: str | None, name: str, snapshot: str) -> int:
    """Read every byte of SNAPSHOT of dataset NAME, and compare it with the added bytes.

    Parts that were removed on purpose are listed and are no finding.
    """
    frozen = _usage(_existing(name, root).at, snapshot)
    bad = frozen.verify()
    removed = [part.name for part, what in bad if what == "removed"]
    is_told = any(what == "lost" for _, what in bad) or len(bad) < len(frozen)
    # Parts that were signed with another key look damaged, each of them.
    advice = _ADD_AGAIN if is_told else _NOT_TOLD
    findings = [
        {"level": "error", "where": part.path, "what": f"the part is {what}", "do": advice}
        for part, what in bad
        if what != "removed"
    ]
    code = out.findings(findings)
    for part in removed:
        out.say(f"{part}: removed on purpose")
    if not findings:
        out.say(f"{name} {snapshot}: every byte is as it was added")
    fields: dict[str, Any] = {"removed": removed, "findings": findings}
    out.document("dataset.verify", name=name, snapshot=snapshot, **fields)
    return code


@command.command()
@click.argument("name", shell_complete=completion.dataset_name)
@click.option("--key", metavar="KEY", help="Remove the part of this key, for good.")
@click.option("--snapshot", metavar="SNAPSHOT", help="Remove this snapshot, and none of its parts.")
@output.deleting
@output.common
def rm(
    out: output.Output,
    root: str | None,
    consent: output.Consent,
    name: str,
    key: str | None,
    snapshot: str | None,
) -> int:
    """Remove a part or a snapshot of dataset NAME.

    Nothing can be added under a removed key, whether it had a part or not.
    """
    if (key is None) == (snapshot is None):
        raise click.UsageError("name what to remove: --key KEY or --snapshot SNAPSHOT")
    dataset = _existing(name, root)
    what = f"the part of key {key!r}" if key is not None else f"snapshot {snapshot!r}"
    absent = f"{what} is not there"
    if key is not None and not _has_part(dataset, key):
        # A writer may be adding it at this moment. So a removal blocks the key in any case.
        absent += "; the key is blocked for good: nothing can be added under it"
        what += ", which is not there: the key would be blocked for good"
    if snapshot is not None and snapshot not in dataset.snapshots():
        what += ", which is not there"
    was_there = False
    if consent(f"from {name}: {what}"):
        was_there = dataset.remove(key) if key is not None else _usage(dataset.forget, snapshot)
        out.say(f"{name}: {what} is removed" if was_there else f"{name}: {absent}")
    elif consent.dry_run:
        out.say(f"{name}: would remove {what}")
    fields: dict[str, Any] = {"key": key, "snapshot": snapshot, "removed": was_there}
    out.document("dataset.rm", name=name, dry_run=consent.dry_run, **fields)
    return output.FINE


def _has_part(dataset: Dataset, key: str) -> bool:
    from efsstate.format import dataset_layout

    folders = dataset.folders()
    folders.require_key()
    return bool(folders.find(dataset_layout.key_digest(key, folders.mount.key)))


def _open(name: str, root: str | None) -> Dataset:
    from efsstate.datasets.dataset import dataset

    opened: Dataset = _usage(dataset, name, root=root)
    return opened


def _existing(name: str, root: str | None) -> Dataset:
    from efsstate.datasets import catalog

    opened = _open(name, root)
    if name not in catalog.names(root=root):
        raise click.UsageError(f"there is no dataset {name!r}: `efsstate dataset ls` lists them")
    return opened


def _usage(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call `function`; a name that cannot be one, or that is unknown, is a mistake in the line."""
    try:
        return function(*arguments, **options)
    except CorruptEntryError:
        raise
    except (ValueError, LookupError) as error:
        raise click.UsageError(str(error)) from None
