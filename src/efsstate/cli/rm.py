"""`efsstate rm`: removes by name what the sweep would keep; within the root, and only what is ours."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import click

from efsstate.cli import output
from efsstate.cli.output import Consent, Output
from efsstate.cli.places import Place, find, locate, open_root
from efsstate.errors import ClaimedError
from efsstate.format import layout
from efsstate.mount import lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from efsstate.mount.files import Mount


@click.command("rm")
@click.argument("places", nargs=-1, required=True)
@output.common
@output.deleting
def command(places: tuple[str, ...], out: Output, root: str | None, consent: Consent) -> int:
    """Remove cache namespaces, cache entries and checkpoints: cache/NAMESPACE, cache/NAMESPACE/3/DIGEST, checkpoints/NAME.

    A cache entry's loss costs a computation. A checkpoint's loss is a loss: one that is claimed is refused. Model versions
    are removed by `efsstate model prune`. Files that are not ours stay, and so does their folder.
    """
    mount = open_root(root)
    found = [locate(mount, text) for text in places]
    for place in found:
        if place.area == layout.MODELS:
            raise click.UsageError(
                f"{place.path}: model versions are removed by `efsstate model prune`"
            )
        if place.folder is None:
            raise click.UsageError(
                f"{place.path}: name a namespace, an entry or a checkpoint, not all of them"
            )
    count = size = 0
    for place in found:
        for _, _, bytes_in_it in _files(mount, place):
            count, size = count + 1, size + bytes_in_it
    what = (
        f"{count:,} files, {output.bytes_text(size)}, at {', '.join(place.path for place in found)}"
    )
    fields = {
        "root": mount.path,
        "places": [place.path for place in found],
        "files": count,
        "size": size,
    }
    if not consent(what):
        out.say(f"would remove {what}" if consent.dry_run else "nothing was removed")
        out.document("rm", **fields, removed=0, left=[], dry_run=consent.dry_run)
        return output.FINE
    removed, left = 0, []
    for place in found:
        with_lock = _claim(mount, place)
        try:
            for folder, name, _ in _files(mount, place):
                removed += mount.remove(folder, name)
            left += [mount.path_of(path) for path in _empty(mount, place)]
        finally:
            if with_lock is not None:
                with_lock.release()
    out.say(f"removed {removed:,} files, {output.bytes_text(size)}")
    for path in left:
        out.say(f"left alone, for it is not empty: {path}")
    out.document("rm", **fields, removed=removed, left=left, dry_run=False)
    return output.FINE


def _files(mount: Mount, place: Place) -> Iterator[tuple[str, str, int]]:
    """Folder, name and size of each file of ours at `place`."""
    assert place.folder is not None
    folder = f"{place.area}/{place.folder}"
    if place.rest is not None:
        where, _, name = place.path.rpartition("/")
        if place.area != layout.CACHE or not layout.is_digest(name):
            raise click.UsageError(
                f"{place.path}: only a whole checkpoint, or a cache entry, can be removed"
            )
        yield where, name, find(mount, place.path).st_size
        return
    find(mount, place.path)
    yield from _below(mount, folder, place.area)


def _below(mount: Mount, folder: str, area: str) -> Iterator[tuple[str, str, int]]:
    inner = []
    for name in mount.names(folder):
        try:
            found = mount.stat(folder, name)
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(found.st_mode):
            if found.st_dev == mount.stat("", ".").st_dev:  # what is mounted there is not ours
                inner.append(name)
        elif _ours(name, area) and (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
            yield folder, name, found.st_size
    if (
        folder.count("/") == 1
    ):  # a namespace has its sixteen folders, a checkpoint its shards; none of them more
        for name in inner:
            if (
                name in "0123456789abcdef"
                if area == layout.CACHE
                else name[0] == "s" and name[1:].isdigit()
            ):
                yield from _below(mount, f"{folder}/{name}", area)


def _ours(name: str, area: str) -> bool:
    if layout.is_temporary(name):
        return True
    if area == layout.CACHE:
        return (
            layout.is_digest(name)
            or name in (layout.POLICY, layout.LOCK)
            or layout.is_cleared(name)
        )
    return (
        name == layout.LOCK
        or layout.parse_claim(name) is not None
        or layout.parse_shard(name) is not None
    )


def _claim(mount: Mount, place: Place) -> lock.Lock | None:
    """The lock of a checkpoint, so that nobody claims it while it goes."""
    if place.area != layout.CHECKPOINTS:
        return None
    held = lock.attempt(mount, f"{place.area}/{place.folder}", layout.LOCK)
    if not isinstance(held, lock.Lock):
        os.close(held)
        raise ClaimedError(
            f"{mount.path_of(place.path)}: it is claimed now: wait for its owner, or take it from them with"
            f" `efsstate checkpoint break {layout.readable(place.folder or '')}`"
        )
    return held


def _empty(mount: Mount, place: Place) -> Iterator[str]:
    """Remove the folders at `place`; those that are not empty stay."""
    if place.rest is not None:
        return
    folder = f"{place.area}/{place.folder}"
    for name in mount.names(folder):
        if len(name) == 1 or name[0] == "s":
            mount.remove_folder(f"{folder}/{name}")
    if not mount.remove_folder(folder) and mount.names(folder):
        yield folder
