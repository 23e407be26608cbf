"""Complete places and names for a shell, from the folders' names; a long one is looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from efsstate.cli import jobs
from efsstate.cli.places import AREAS, folders, open_root
from efsstate.errors import EfsStateError
from efsstate.format import dataset_layout, layout, record_layout

if TYPE_CHECKING:
    from collections.abc import Callable

    import click

    from efsstate.mount.files import Mount

    Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def place(ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the places below the root that begin so: an area's, or all areas."""
    area, slash, _ = begun.partition("/")
    if not slash:
        return [f"{area}/" for area in AREAS if area.startswith(begun)]
    names = _names(ctx, area) if area in AREAS else []
    return [text for text in (f"{area}/{name}" for name in names) if text.startswith(begun)]


def name_in(area: str) -> Completer:
    """Return the completer of names in `area`, as programs give them."""

    def complete(ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
        return [name for name in _names(ctx, area) if name.startswith(begun)]

    return complete


checkpoint_name = name_in(layout.CHECKPOINTS)
model_name = name_in(layout.MODELS)
dataset_name = name_in(dataset_layout.DATASETS)


def _names(ctx: click.Context, area: str) -> list[str]:
    """Return the names in `area`; none if there is no root, or it cannot be read."""
    root = ctx.params.get("root") or ctx.find_root().params.get("root")
    try:
        mount = open_root(root)
        return [_name(mount, area, component) for component in folders(mount, area, None)]
    except (OSError, EfsStateError):
        return []  # a shell's prompt is no place for an error


def _name(mount: Mount, area: str, component: str) -> str:
    """Return the name that leads to a folder: the program's, or the folder's if that was cut."""
    if area == layout.CHECKPOINTS:
        return jobs.whole_name(mount, f"{area}/{component}")
    if area == dataset_layout.DATASETS:
        return dataset_layout.dataset_name(component)
    if area == layout.MODELS:
        return layout.model_name(component)
    if area == record_layout.RECORDS:
        return component  # with the length of its windows
    text = layout.readable(component)
    return text if layout.component(text) == component else component
