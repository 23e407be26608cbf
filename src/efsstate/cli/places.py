"""Find the place below the root that an operator names, and nothing outside of it."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import click

from efsstate.cli import jobs
from efsstate.cli.lookup import NO_SUCH, is_folder
from efsstate.errors import RootError
from efsstate.format import dataset_layout, layout, record_layout
from efsstate.mount.root import require_present, resolve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from efsstate.mount.files import Mount

AREAS = (
    layout.CACHE,
    layout.CHECKPOINTS,
    layout.MODELS,
    dataset_layout.DATASETS,
    record_layout.RECORDS,
)


def open_root(root: str | None) -> Mount:
    """Return the mount to look at; nothing is made. Raise RootError if none is named or there."""
    if root is not None and not os.path.isdir(root):
        raise RootError(
            f"{root or repr(root)}: the root is not a folder; name one with --root or EFSSTATE_ROOT"
        )
    require_present(root)
    return resolve(root, durable=True, reading=True)


class Place:
    """A place below the root: an area, a folder in it, and the `rest` of the path in that.

    `folder` is the name of a namespace's, checkpoint's or model's folder; it and `rest` are None if
    the place is wider.
    """

    def __init__(self, area: str, folder: str | None, rest: str | None) -> None:
        self.area, self.folder, self.rest = area, folder, rest

    @property
    def path(self) -> str:
        """Return the path below the root."""
        return "/".join([part for part in (self.area, self.folder, self.rest) if part])


def locate(mount: Mount, text: str) -> Place:
    """Return the place that `text` names: a path below the root, or the full path of one.

    Names as programs give them will do too: `checkpoints/import/2026-11-01`. Raise click.UsageError
    for anything else.
    """
    path = os.path.normpath(text)
    if os.path.isabs(path):
        path = _below(mount, text, path)
    area, *parts = path.split("/")
    if area not in AREAS or ".." in parts:
        raise click.UsageError(
            f"{text}: name a place below the root, such as cache/NAMESPACE, checkpoints/NAME,"
            " models/NAME, datasets/NAME or records/NAME"
        )
    if not parts:
        return Place(area, None, None)
    if is_folder(mount, f"{area}/{parts[0]}"):
        return Place(area, parts[0], "/".join(parts[1:]) or None)
    name = "/".join(parts)
    try:
        if area == layout.MODELS:
            return Place(area, layout.model_component(name), None)
        if area == dataset_layout.DATASETS:
            return Place(area, dataset_layout.folder(name).rpartition("/")[2], None)
        if area == layout.CHECKPOINTS:
            return _checkpoint(mount, name)
        return Place(area, layout.component(name), None)
    except ValueError as error:
        raise click.UsageError(f"{text}: {error}") from None


def _below(mount: Mount, text: str, path: str) -> str:
    """Return the absolute `path` relative to the root."""
    for top in (mount.path, os.path.realpath(mount.path)):
        if path == top or path.startswith(top.rstrip("/") + "/"):
            return os.path.relpath(path, top)
    raise click.UsageError(f"{text}: it is not below the root, {mount.path}")


def _checkpoint(mount: Mount, name: str) -> Place:
    """Return the place of the checkpoint, or of the shard (`job[3]`), called `name`."""
    try:
        folder = jobs.locate(mount, name)
    except FileNotFoundError:
        return Place(layout.CHECKPOINTS, layout.component(name), None)
    component, _, shard = folder.removeprefix(f"{layout.CHECKPOINTS}/").partition("/")
    return Place(layout.CHECKPOINTS, component, shard or None)


def folders(mount: Mount, area: str, place: Place | None) -> Iterator[str]:
    """Yield the names of the folders in `area`, or only the one that `place` names."""
    if place is not None and place.area != area:
        return
    if place is not None and place.folder is not None:
        if not is_folder(mount, f"{area}/{place.folder}"):
            path = mount.path_of(area, place.folder)
            raise FileNotFoundError(errno.ENOENT, NO_SUCH, path)
        yield place.folder
        return
    yield from sorted(
        item.name
        for item in mount.scan(area)
        if item.is_dir(follow_symlinks=False) and item.name[0] != "."
    )
