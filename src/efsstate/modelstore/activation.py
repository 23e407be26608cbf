"""Activation: make a version the one that is served, without losing it to a prune."""

from __future__ import annotations

import time

from efsstate import events
from efsstate.errors import CorruptEntryError, ModelNotFound
from efsstate.format import layout
from efsstate.modelstore import catalog, pointer
from efsstate.modelstore import manifest as manifests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.modelstore.manifest import Manifest
    from efsstate.mount.files import Mount

_TRIES, _PAUSE = 20, 0.05  # looks for a version that a prune may put back, and seconds between them


def activate(mount: Mount, name: str, model: str, manifest: Manifest) -> None:
    """Make the published version of `manifest` the active one; raise ModelNotFound if it is gone.

    Race with a prune, which renames the version away, then reads CURRENT, then the stamp:

    1. We stamp the version, write CURRENT, then check that the version exists.
    2. It puts the version back if CURRENT names it, or if its stamp is young.

    Whichever of us runs second sees the other's change.
    """
    previous = pointer.read_or_none(mount, model)
    is_same_id = previous is not None and previous.version == manifest.version
    if is_same_id and previous is not None and previous.encoded == manifest.encoded:
        return
    folder = layout.version_folder(model, manifest.version)
    # An open folder may be one that another publisher has put aside.
    mount.forget(folder, above=False)
    try:
        mount.stamp(folder, layout.MANIFEST)
    except FileNotFoundError:
        raise catalog.no_such_version(mount, name, model, manifest.version) from None
    # The grace of the outgoing version begins now. If it is unknown, it may have been any of them.
    if previous is not None:
        outgoing = [previous.version]
    else:
        names = mount.names(layout.version_folder(model, ""))
        outgoing = [name for name in names if not manifests.bad_version(name)]
    for version in outgoing:
        if version != manifest.version:
            stamp(mount, model, version)
    pointer.write(mount, model, manifest)
    try:
        wait_for(mount, name, model, manifest.version)
    except ModelNotFound:
        if previous is not None and previous.version != manifest.version:
            activate(mount, name, model, previous)
        raise


def wait_for(mount: Mount, name: str, model: str, version: str) -> None:
    """Wait while a prune may have the version; raise ModelNotFound if it removed it."""
    for _ in range(_TRIES):
        if version in mount.names(layout.version_folder(model, "")):
            return
        time.sleep(_PAUSE)
    raise catalog.no_such_version(mount, name, model, version)


def stamp(mount: Mount, model: str, version: str) -> None:
    """Begin the grace of the version now."""
    try:
        mount.stamp(layout.version_folder(model, version), layout.MANIFEST)
    except (OSError, CorruptEntryError) as error:
        # It is missing, or another user's: a prune judges it by its older stamp.
        events.log("warning", "%s", error)
