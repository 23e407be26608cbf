"""CURRENT: the symbolic link that tells which version of a model is served, read and written."""

from __future__ import annotations

from efsstate import events
from efsstate.errors import CorruptEntryError, UnknownFormatError
from efsstate.format import layout
from efsstate.modelstore import manifest as manifests
from efsstate.mount import links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.modelstore.manifest import Manifest
    from efsstate.mount.files import Mount


def read(mount: Mount, model: str) -> Manifest:
    """Return the active version of the model, as this host's NFS client knows it.

    The link holds the manifest itself if that is short, else the version's id. Refresh the folder
    `versions` first to be sure. Raises as `manifest.read`.
    """
    folder = layout.version_folder(model, "")
    path = mount.path_of(folder, layout.CURRENT)
    for read_manifest in (manifests.read_as_known, manifests.read):
        text = links.read(mount, folder, layout.CURRENT, certain=True)
        if text[:1] == "{":
            return manifests.parse(text.encode(errors="surrogateescape"), path)
        if why := manifests.bad_version(text):
            raise CorruptEntryError(path, f"it names the version {text[:200]!r}: {why}")
        try:
            return read_manifest(mount, model, text)
        except FileNotFoundError:
            # 1. A prune removed it, and another was active before that; or
            # 2. this host's client only remembers that it was missing.
            mount.refresh(folder)
    raise CorruptEntryError(path, f"it names version {text}, which is missing: activate another")


def read_or_none(mount: Mount, model: str) -> Manifest | None:
    """Return the active version as the server has it now; None if none is known to be active.

    Damage and a newer format are logged: no version counts as active then.
    """
    mount.refresh(layout.version_folder(model, ""))
    try:
        return read(mount, model)
    except FileNotFoundError:
        return None
    except (CorruptEntryError, UnknownFormatError) as error:
        events.log("warning", "%s; no version counts as active", error)
        return None


def write(mount: Mount, model: str, manifest: Manifest) -> None:
    """Make `manifest` the active version, durably and in one step."""
    folder, text = layout.version_folder(model, ""), manifest.encoded.decode()
    if len(text) <= links.LONGEST:
        try:
            links.replace(mount, folder, layout.CURRENT, text)
        except OSError as error:
            import errno

            if error.errno != errno.ENAMETOOLONG:  # some local file systems take 1,000 bytes
                raise
        else:
            return
    links.replace(mount, folder, layout.CURRENT, manifest.version)
