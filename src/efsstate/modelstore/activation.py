"""Activation: make a version the one that is served, without losing it to a prune."""

from __future__ import annotations

import time

from efsstate import events, process
from efsstate.errors import CorruptEntryError, EfsStateError, ModelNotFound
from efsstate.format import layout
from efsstate.modelstore import catalog, pointer
from efsstate.modelstore import manifest as manifests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.modelstore.manifest import Manifest
    from efsstate.modelstore.pointer import Pointer
    from efsstate.mount.files import Mount

_TRIES, _PAUSE = 20, 0.05  # looks for a version that a prune may put back, and seconds between them


def activate(
    mount: Mount,
    name: str,
    model: str,
    manifest: Manifest,
    label: str | None = None,
    share: float = 1.0,
    *,
    restores: bool = False,
) -> None:
    """Make the published version of `manifest` the active one; raise ModelNotFound if it is gone.

    `label`: under this label, instead of by default. `share`: of that part of the environments, as
    a canary beside the active version. `restores`: undo an activation that failed, so that the
    version's canary counts again.

    Race with a prune, which renames the version away, then reads CURRENT, then the stamp:

    1. We stamp the version, write CURRENT, then check that the version exists.
    2. It puts the version back if CURRENT names it, or if its stamp is young.

    Whichever of us runs second sees the other's change.
    """
    above, version = layout.version_folder(model, ""), manifest.version
    names = mount.names(above)
    canary, canary_link = None, layout.canary_name(label)
    # The canary is read before CURRENT. So one that does not count beside CURRENT's version has
    # ended, and was not started meanwhile.
    if canary_link in names:
        canary = pointer.read_canary(mount, model, label, beside=None)
    previous = pointer.known_or_none(mount, model, label)
    if previous is not None and previous.version == version and _is_same(previous, manifest):
        if canary is not None:  # so this is how a canary is rolled back
            stamp(mount, model, canary.version)
            mount.remove(above, canary_link)
        return
    _begin_grace(mount, name, model, version)
    if share < 1:
        _start_canary(mount, name, model, manifest, label, share, previous, canary)
        return
    # The grace of the outgoing versions begins now. If they are unknown, it may be any of them.
    outgoing = [canary.version] if canary else []
    if previous is not None:
        outgoing.append(previous.version)
    elif label is None or layout.pointer_name(label) in names:
        outgoing += [name for name in names if not manifests.bad_version(name)]
    for other in outgoing:
        if other not in ("", version):
            stamp(mount, model, other)
    has_ended = canary is not None and (previous is None or canary.previous != previous.version)
    # An activation that was killed had ended this canary, and left its link. Beside `version` the
    # canary would count again.
    # MUT: a-canary-that-ended-does-not-begin-again
    if has_ended and not restores:
        mount.remove(above, canary_link)
        canary = None
    pointer.write(mount, model, label, manifest, _before(previous, version))
    try:
        wait_for(mount, name, model, version)
    except ModelNotFound:
        if previous is not None and previous.version not in ("", version):
            restored = catalog.find(mount, name, model, previous.version)
            activate(mount, name, model, restored, label, restores=True)
        raise
    # An ended canary costs each reader a request. One that was started beside ours stays.
    if canary is not None and pointer.read_canary(mount, model, label, version) is None:
        mount.remove(above, canary_link)


def _before(previous: Pointer | None, version: str) -> str:
    """Return the id to note as the one that was active before `version`."""
    if previous is None:
        return ""
    before = previous.version or previous.previous
    return before if before != version else ""


def _begin_grace(mount: Mount, name: str, model: str, version: str) -> None:
    """Stamp the version that is to be activated; raise ModelNotFound if it is gone."""
    folder = layout.version_folder(model, version)
    # An open folder may be one that another publisher has put aside.
    mount.forget(folder, above=False)
    try:
        mount.stamp(folder, layout.MANIFEST)
    except FileNotFoundError:
        raise catalog.no_such_version(mount, name, model, version) from None


def _start_canary(
    mount: Mount,
    name: str,
    model: str,
    manifest: Manifest,
    label: str | None,
    share: float,
    previous: Pointer | None,
    canary: Pointer | None,
) -> None:
    """Give the version a share beside the active one, in place of another canary."""
    version = manifest.version
    if previous is None or not previous.version:
        path = mount.path_of(layout.version_folder(model, ""), layout.pointer_name(label))
        raise EfsStateError(
            f"{path}: no version is active beside which {version} can have a share; activate one"
        )
    if canary is not None and canary.version != version:
        stamp(mount, model, canary.version)
    pointer.write_canary(mount, model, label, manifest, share, previous.version)
    wait_for(mount, name, model, version)


def _is_same(previous: Pointer, manifest: Manifest) -> bool:
    """Return True if the pointer holds this manifest, or an id alone."""
    if previous.text[:1] != "{":
        return True
    return previous.text.encode(errors="surrogateescape") == manifest.encoded


def withdraw(mount: Mount, model: str, *, has_grace: bool) -> None:
    """Hide the model: CURRENT says that it was removed, and the labels go.

    `has_grace`: the grace of every version that was served begins now.
    """
    above = layout.version_folder(model, "")
    served = catalog.Served(mount, model)
    if served.named is None:  # any version may have been served
        in_use = {name for name in mount.names(above) if not manifests.bad_version(name)}
    else:
        in_use = served.named
    for version in sorted(in_use) if has_grace else ():
        stamp(mount, model, version)
    before = served.active or ""
    # MUT: a-second-removal-keeps-the-previous-version
    if served.is_removed:  # a removal was killed before all labels were gone
        link = pointer.known_or_none(mount, model)
        before = link.previous if link is not None else ""
    pointer.write(mount, model, None, None, before)
    for name in mount.names(above):
        if layout.is_pointer(name) and name != layout.CURRENT:
            mount.remove(above, name)


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
        process.raise_of_handler(error)
        # It is missing, or another user's: a prune judges it by its older stamp.
        events.log(
            "warning",
            "%s: its grace does not begin anew: %s",
            version,
            error,
            kind="model",
            event="not_stamped",
            path=mount.path_of(layout.version_folder(model, version)),
            error=type(error).__name__,
        )
