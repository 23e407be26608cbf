"""`efsstate rm`: remove by name, inside the root, and only files of our own."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import click

from efsstate.cli import completion, output
from efsstate.cli.lookup import find
from efsstate.cli.output import Consent, Output, count_text
from efsstate.cli.places import Place, folders, locate, open_root
from efsstate.errors import ClaimedError
from efsstate.eviction import removal
from efsstate.format import dataset_layout, grammar, layout, record_layout
from efsstate.mount import lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from efsstate.mount.files import Mount


@click.command("rm")
@click.argument("places", nargs=-1, required=True, shell_complete=completion.place)
@click.option("--prefix", is_flag=True, help="PLACES are how names of checkpoints begin.")
@output.common
@output.deleting
def command(
    places: tuple[str, ...], prefix: bool, out: Output, root: str | None, consent: Consent
) -> int:
    """Remove namespaces, cache entries and checkpoints.

    PLACES are cache/NAMESPACE, cache/NAMESPACE/3/DIGEST or checkpoints/NAME. The loss of a cache
    entry costs a computation; the loss of a checkpoint is a loss, so one that is claimed is
    refused. With --prefix each of PLACES is the beginning of names: checkpoints/import/2025- stands
    for all checkpoints with a name that begins like that. Model versions are removed by `efsstate
    model prune`. Files that efsstate did not make stay, and so does their folder.
    """
    mount = open_root(root)
    matches = _with_prefixes(mount, places) if prefix else [locate(mount, text) for text in places]
    located = list({place.path: place for place in matches}.values())
    for place in located:
        _require_removable(place)
    sizes = [size for place in located for size in _sizes(mount, place)]
    for place in located:
        if place.area == layout.CHECKPOINTS:
            _require_unclaimed(mount, place)
    where = ", ".join(place.path for place in located)
    what = f"{count_text(len(sizes), 'file')}, {output.bytes_text(sum(sizes))}, at {where}"
    fields = {
        "root": mount.path,
        "places": [place.path for place in located],
        "files": len(sizes),
        "size": sum(sizes),
    }
    if not consent(what):
        out.say(f"would remove {what}" if consent.dry_run else "nothing was removed")
        out.document("rm", **fields, removed=0, left=[], foreign=[], dry_run=consent.dry_run)
        return output.FINE
    removed, size, kept, foreign = 0, 0, [], []
    for place in located:
        result = _remove(mount, place)
        removed, size = removed + result.removed, size + result.size
        foreign += result.foreign
        kept += [mount.path_of(place.path)] if result.foreign else []
    out.say(f"removed {count_text(removed, 'file')}, {output.bytes_text(size)}")
    for path in foreign:
        out.say(f"not removed, because it is not efsstate's: {path}")
    out.document("rm", **fields, removed=removed, left=kept, foreign=foreign, dry_run=False)
    return output.FINE


def _with_prefixes(mount: Mount, prefixes: tuple[str, ...]) -> list[Place]:
    """Return the checkpoints with a name that begins with one of `prefixes`.

    Raise FileNotFoundError for a prefix that none has, and click.UsageError for one of another area
    or of all.
    """
    from efsstate.cli import jobs

    components = list(folders(mount, layout.CHECKPOINTS, None))
    names = {name: jobs.whole_name(mount, f"{layout.CHECKPOINTS}/{name}") for name in components}
    located = []
    for text in prefixes:
        area, _, start = text.partition("/")
        if area != layout.CHECKPOINTS or not start:
            raise click.UsageError(f"--prefix {text}: give checkpoints/ and how the names begin")
        matches = [component for component, name in names.items() if name.startswith(start)]
        if not matches:
            why = "no checkpoint has a name that begins so"
            raise FileNotFoundError(errno.ENOENT, why, mount.path_of(text))
        located += [Place(layout.CHECKPOINTS, component, None) for component in matches]
    return located


def _require_removable(place: Place) -> None:
    """Raise click.UsageError for a place that is too much, too little, or another command's."""
    if place.area == layout.MODELS:
        raise click.UsageError(f"{place.path}: remove versions with `efsstate model prune`")
    if place.area == dataset_layout.DATASETS:
        raise click.UsageError(f"{place.path}: remove parts with `efsstate dataset rm`")
    if place.area == record_layout.RECORDS:
        raise click.UsageError(
            f"{place.path}: records keep calls from running twice, and go with `efsstate gc`"
        )
    if place.folder is None:
        raise click.UsageError(
            f"{place.path}: name a namespace, an entry or a checkpoint, not all of them"
        )
    is_entry = place.area == layout.CACHE and layout.is_digest(place.path.rpartition("/")[2])
    if place.rest is not None and not is_entry:
        raise click.UsageError(
            f"{place.path}: only a whole checkpoint, a namespace or a cache entry can be removed"
        )


def _sizes(mount: Mount, place: Place) -> Iterator[int]:
    """Yield the size of each file of ours at `place`."""
    status = find(mount, place.path)
    if place.rest is not None:
        yield status.st_size
        return
    level = grammar.namespace if place.area == layout.CACHE else grammar.checkpoint
    for item in removal.walk(mount, place.path, level):
        if item.is_ours and not item.is_folder:
            yield item.status.st_size


def _require_unclaimed(mount: Mount, place: Place) -> None:
    """Raise ClaimedError if the checkpoint, or one of its shards, is in use."""
    from efsstate.cli import jobs

    shards = [f"{place.path}/s{index}" for index in jobs.begun_shards(mount, place.path)]
    for folder in (place.path, *shards):
        if lock.is_held(mount, folder, layout.LOCK):
            name = jobs.whole_name(mount, folder)
            raise ClaimedError(
                f"{mount.path_of(folder)}: it is claimed; wait for its owner, or fence it with"
                f" `efsstate checkpoint break {name}`"
            )


def _remove(mount: Mount, place: Place) -> removal.Removal:
    """Remove the entry or folder at `place`; fence a checkpoint first, so that no save is lost."""
    if place.rest is not None:
        result = removal.Removal()
        folder, _, name = place.path.rpartition("/")
        status = find(mount, place.path)
        if mount.remove(folder, name):
            result.removed, result.size = 1, status.st_size
        return result
    if place.area == layout.CACHE:
        return removal.remove_tree(mount, place.path, grammar.namespace)
    from efsstate.checkpoints import fenced_removal

    removed = fenced_removal.remove(mount, place.path)
    if removed is None:
        raise ClaimedError(
            f"{mount.path_of(place.path)}: claimed while it was to be removed, and not removed;"
            " try again"
        )
    return removed
