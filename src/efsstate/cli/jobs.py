"""Find checkpoints by name or by folder, and read how far they are; nothing is made by it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from efsstate.checkpoints import claimant
from efsstate.checkpoints.protocol import CheckpointFolder
from efsstate.checkpoints.status import read_status
from efsstate.cli.lookup import find, is_folder
from efsstate.errors import EfsStateError
from efsstate.format import layout

if TYPE_CHECKING:
    from efsstate.mount.files import Mount

_SHARD = re.compile(r"(.+)\[(\d+)\]", re.DOTALL)
_MOST_READ = 256  # shards of which the status is read: a job may have 100,000


def locate(mount: Mount, name: str) -> str:
    """Return the folder, below the root, of the checkpoint or shard (`job[3]`) called `name`.

    Raise FileNotFoundError if there is none, and ValueError if it cannot be a name.
    """
    folder = f"{layout.CHECKPOINTS}/{layout.component(name)}"
    match = _SHARD.fullmatch(name)
    if match and not is_folder(mount, folder):
        shard = f"{layout.CHECKPOINTS}/{layout.component(match[1])}/s{int(match[2])}"
        if is_folder(mount, shard):
            return shard
    find(mount, folder)
    return folder


def whole_name(mount: Mount, folder: str) -> str:
    """Return the name as the program gave it, to be shown.

    A folder's name holds only part of a long name; the record of a claim holds all of it. If that
    record cannot be read, return the part with "…", which opens no checkpoint: see `opening_name`.
    """
    component, _, shard = folder.removeprefix(f"{layout.CHECKPOINTS}/").partition("/")
    text = layout.readable(component)
    if layout.component(text) != component:
        text = _recorded_name(mount, f"{layout.CHECKPOINTS}/{component}", component) or f"{text}…"
    return f"{text}[{shard[1:]}]" if shard else text


def opening_name(mount: Mount, folder: str, typed: str) -> str:
    """Return the name by which a program opens the checkpoint in `folder`, not that of a shard.

    It is `typed`, without the number of a shard, if that is the name of this folder, else the
    recorded name. Raise `EfsStateError` if neither is.
    """
    component = folder.removeprefix(f"{layout.CHECKPOINTS}/")
    match = _SHARD.fullmatch(typed)
    for name in (typed, match[1] if match else "", whole_name(mount, folder)):
        # MUT: a-command-changes-the-checkpoint-that-it-located
        if name and layout.component(name) == component:
            return name
    raise EfsStateError(
        f"{mount.path_of(folder)}: its name cannot be read from its last claim; type the whole name"
    )


def _recorded_name(mount: Mount, folder: str, component: str) -> str:
    """Return the name in the record of a last claim, the checkpoint's or a shard's."""
    places = [folder, *[f"{folder}/s{index}" for index in begun_shards(mount, folder)[:_MOST_READ]]]
    for place in places:
        checkpoint = CheckpointFolder(mount, place)
        top = checkpoint.list().top
        name = claimant.read(checkpoint, top).get("name") if top else None
        name = re.sub(r"\[\d+\]$", "", name) if isinstance(name, str) and place != folder else name
        if isinstance(name, str) and name and layout.component(name) == component:
            return name
    return ""


def begun_shards(mount: Mount, folder: str) -> list[int]:
    """Return the indexes of the shards that were begun."""
    parsed = filter(None, map(layout.parse_shard, mount.names(folder)))
    return sorted(index for kind, index, _ in parsed if kind == "s")


def status(mount: Mount, folder: str) -> dict[str, Any]:
    """Return the fields of `Checkpoint.status` with `state`, and the sums of a job's shards.

    `state` is "finished", "claimed" or "waiting". Raise OSError and EfsStateError.
    """
    name = whole_name(mount, folder)
    fields: dict[str, Any] = dict(read_status(CheckpointFolder(mount, folder), name))
    if fields["shards"] is not None:
        _add_shards(mount, folder, fields)
    is_finished, is_claimed = fields["finished"], fields["claimed"]
    fields["state"] = "finished" if is_finished else "claimed" if is_claimed else "waiting"
    return fields


def _add_shards(mount: Mount, folder: str, fields: dict[str, Any]) -> None:
    """Add up the saves of the shards; in a job of many, of the first of them."""
    saved: list[float] = [fields["saved"] or 0.0]
    for index in begun_shards(mount, folder)[:_MOST_READ]:
        shard = CheckpointFolder(mount, f"{folder}/s{index}")
        save = shard.read_header(shard.list())
        if save is not None:
            fields["items"] += save.items
            fields["saves"] += save.saves
            fields["bytes"] += save.size
            fields["skipped"] += save.skipped
            saved.append(save.created)
    fields["saved"] = max(saved) or None
    fields["position"] = f"{fields['shards']['done']}/{fields['shards']['total']} shards"


def read_state(mount: Mount, folder: str) -> tuple[Any, str, int]:
    """Return the newest state, its codec, and its schema; None if there is none.

    A state of a codec that runs code is not decoded: EfsStateError.
    """
    from efsstate.checkpoints.saves import States

    checkpoint = CheckpointFolder(mount, folder)
    save = checkpoint.newest()[0].save
    if save is None or save.empty:
        return None, "", 0
    if save.codec != "msgpack":
        raise EfsStateError(
            f"{checkpoint.path(save.key)}: its state is encoded with {save.codec!r}, which may run"
            " code; read it with Checkpoint.load() in the program that wrote it"
        )
    states = States("msgpack", save.schema, None, signed=mount.key is not None)
    return states.decode(save, checkpoint.path(save.key)), save.codec, save.schema
