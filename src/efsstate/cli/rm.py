"""`efsstate rm`: removes by name what the sweep would keep; within the root, and only what is ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from efsstate.cli import output
from efsstate.cli.output import Consent, Output
from efsstate.cli.places import Place, find, locate, open_root
from efsstate.eviction import removal
from efsstate.format import grammar, layout

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
        out.document("rm", **fields, removed=0, left=[], foreign=[], dry_run=consent.dry_run)
        return output.FINE
    removed, left, foreign = 0, [], []
    for place in found:
        gone, strangers = _remove(mount, place)
        removed += gone
        foreign += strangers
        left += [mount.path_of(place.path)] if strangers else []
    out.say(f"removed {removed:,} files, {output.bytes_text(size)}")
    for path in foreign:
        out.say(f"stays, because it is not efsstate's: {path}")
    out.document("rm", **fields, removed=removed, left=left, foreign=foreign, dry_run=False)
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
    level = grammar.namespace if place.area == layout.CACHE else grammar.checkpoint
    for item in removal.walk(mount, folder, level):
        if item.is_ours and not item.is_folder:
            yield item.folder, item.name, item.status.st_size


def _remove(mount: Mount, place: Place) -> tuple[int, list[str]]:
    """Remove what is at `place`; return how many files went, and the paths that stay."""
    if place.rest is not None:
        folder, _, name = place.path.rpartition("/")
        return int(mount.remove(folder, name)), []
    folder = f"{place.area}/{place.folder}"
    if place.area == layout.CACHE:
        result = removal.remove_tree(mount, folder, grammar.namespace)
        return result.removed, result.foreign
    from efsstate.checkpoints import fenced_removal

    removed = fenced_removal.remove(mount, folder)
    return (removed.removed, removed.foreign) if removed is not None else (0, [])
