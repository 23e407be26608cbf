"""Which place below the root an operator names, and nothing outside of it."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import click

from efsstate.errors import RootError
from efsstate.format import layout
from efsstate.mount.root import resolve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from efsstate.mount.files import Mount

AREAS = (layout.CACHE, layout.CHECKPOINTS, layout.MODELS)


def open_root(root: str | None) -> Mount:
    """The mount to look at. Raises `RootError`."""
    if root is not None and not os.path.isdir(root):
        raise RootError(f"{root}: the root is not a folder: name one with --root or EFSSTATE_ROOT")
    return resolve(root)


class Place:
    """A place below the root: `area`, the `folder` in it, and what is named in that (`rest`).

    The folder is that of a namespace, checkpoint or model; it and `rest` are None where no one of them is named.
    """

    def __init__(self, area: str, folder: str | None, rest: str | None) -> None:
        self.area, self.folder, self.rest = area, folder, rest

    @property
    def path(self) -> str:
        """It, below the root."""
        return "/".join([part for part in (self.area, self.folder, self.rest) if part])


def locate(mount: Mount, text: str) -> Place:
    """The place that `text` names: a path below the root, or a full path in it; names as users gave them will do too."""
    path = os.path.normpath(text)
    if os.path.isabs(path):
        for top in (mount.path, os.path.realpath(mount.path)):
            if path == top or path.startswith(top.rstrip("/") + "/"):
                path = os.path.relpath(path, top)
                break
        else:
            raise click.UsageError(f"{text}: it is not below the root, {mount.path}")
    area, *parts = path.split("/")
    if area not in AREAS or ".." in parts:
        raise click.UsageError(
            f"{text}: name a place below the root, such as cache/NAMESPACE, checkpoints/NAME or models/NAME"
        )
    if not parts:
        return Place(area, None, None)
    if is_folder(mount, f"{area}/{parts[0]}"):
        return Place(area, parts[0], "/".join(parts[1:]) or None)
    try:
        folder = (layout.model_component if area == layout.MODELS else layout.component)(
            "/".join(parts)
        )
    except ValueError as error:
        raise click.UsageError(f"{text}: {error}") from None
    return Place(area, folder, None)


def is_folder(mount: Mount, path: str) -> bool:
    """Whether a folder is at `path`, below the root."""
    try:
        return stat.S_ISDIR(find(mount, path).st_mode)
    except OSError:
        return False


def find(mount: Mount, path: str) -> os.stat_result:
    """The stat of what is at `path`, below the root. Raises `FileNotFoundError` in our words, not the system's."""
    parent, _, name = path.rpartition("/")
    try:
        return mount.stat(parent, name)
    except FileNotFoundError:
        raise FileNotFoundError(
            errno.ENOENT, "there is nothing of this name", mount.path_of(path)
        ) from None


def folders(mount: Mount, area: str, place: Place | None) -> Iterator[str]:
    """The folders of namespaces, checkpoints or models in `area`, or the one that `place` names if it names one there."""
    if place is not None and place.area != area:
        return
    if place is not None and place.folder is not None:
        if not is_folder(mount, f"{area}/{place.folder}"):
            raise FileNotFoundError(
                errno.ENOENT, "there is nothing of this name", mount.path_of(area, place.folder)
            )
        yield place.folder
        return
    yield from sorted(
        [
            item.name
            for item in mount.scan(area)
            if item.is_dir(follow_symlinks=False) and item.name[0] != "."
        ]
    )
