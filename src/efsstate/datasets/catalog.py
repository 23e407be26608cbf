"""List the datasets below a root."""

from __future__ import annotations

from efsstate.format import dataset_layout as layout
from efsstate.mount import root as roots

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os


def names(*, root: str | os.PathLike[str] | None = None) -> list[str]:
    """Return the names of all datasets, sorted; other files are left out."""
    mount = roots.resolve(root, durable=True, reading=True)
    names_there = []
    for item in mount.scan(layout.DATASETS):
        name = layout.dataset_name(item.name)
        try:
            is_ours = layout.folder(name) == f"{layout.DATASETS}/{item.name}"
        except ValueError:
            continue
        if is_ours and item.is_dir(follow_symlinks=False):
            names_there.append(name)
    return sorted(names_there)
