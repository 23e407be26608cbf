"""Which version is served: CURRENT, the labels, and the canaries beside them; read and written.

Each is a symbolic link in the folder `versions`, replaced in one step:

    CURRENT, @<label>     <version> TAB <id that was active before>
    CURRENT%, @<label>%   <version> TAB <share> TAB <id of CURRENT, or of the label, beside it>

<version> is the manifest if that is short, so that a reader needs no more; else the id. "-" in its
place says that the model was removed. A canary counts only beside the version that it names last:
so the activation of another ends it, though its link may stay for a moment.
"""

from __future__ import annotations

import errno

from efsstate import events
from efsstate.errors import CorruptEntryError, ModelNotFound, UnknownFormatError
from efsstate.format import layout
from efsstate.modelstore import manifest as manifests
from efsstate.mount import links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from efsstate.modelstore.manifest import Manifest
    from efsstate.mount.files import Mount

REMOVED = "-"


class Pointer:
    """A link that was read: `text` is a manifest, an id or REMOVED; `previous` an id, or ""."""

    __slots__ = ("previous", "share", "text", "version")

    def __init__(self, text: str, previous: str = "", share: float = 1.0) -> None:
        self.text, self.previous, self.share = text, previous, share
        self.version = text
        if text == REMOVED:
            self.version = ""
        elif text[:1] == "{":
            import json

            self.version = json.loads(text)["version"]

    @property
    def problem(self) -> str:
        """Return why it names no version; "" if it names one, or that the model was removed."""
        return manifests.bad_version(self.version) if self.version or not self.text else ""


def _encode(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _path(mount: Mount, model: str, name: str) -> str:
    return mount.path_of(layout.version_folder(model, ""), name)


def read_link(mount: Mount, model: str, label: str | None = None) -> Pointer:
    """Return CURRENT or the label, as this host's NFS client knows it.

    Raise FileNotFoundError, CorruptEntryError, SignatureError, OSError.
    """
    folder, name = layout.version_folder(model, ""), layout.pointer_name(label)
    text, _, previous = links.read(mount, folder, name, certain=True).partition("\t")
    try:
        link = Pointer(text, previous)
        why = link.problem
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        why = repr(error)
    if why:
        path = mount.path_of(folder, name)
        raise CorruptEntryError(path, f"it names the version {text[:200]!r}: {why}")
    return link


def read_canary(mount: Mount, model: str, label: str | None, beside: str | None) -> Pointer | None:
    """Return the canary beside the version `beside` (None: any); None if there is none."""
    folder, name = layout.version_folder(model, ""), layout.canary_name(label)
    try:
        text, share, stable = links.read(mount, folder, name, certain=True).split("\t")
        canary = Pointer(text, stable, float(share))
    except FileNotFoundError:
        return None
    except (CorruptEntryError, ValueError, KeyError, TypeError, RecursionError) as error:
        # The version beside it serves everybody.
        path = mount.path_of(folder, name)
        events.log(
            "warning",
            "%s: the canary is ignored: %s",
            path,
            error,
            kind="model",
            event="canary_ignored",
            path=path,
            error=type(error).__name__,
        )
        return None
    is_beside = beside is None or stable == beside
    return canary if is_beside and not canary.problem and canary.version else None


def read(
    mount: Mount,
    model: str,
    label: str | None = None,
    names: Iterable[str] = (),
    draw: Callable[[str], float] | None = None,
) -> Manifest:
    """Return the version that this environment is to serve, as its NFS client knows it.

    `names` are those in the folder `versions`, and `draw` gives the environment's number between 0
    and 1 for a version: below the canary's share it serves the canary. Without it, the canary is
    not looked at. Raise as `manifest.read`, and ModelNotFound if the model was removed.
    """
    folder, name = layout.version_folder(model, ""), layout.pointer_name(label)
    has_canary = draw is not None and layout.canary_name(label) in names
    pointer = None
    for read_manifest in (manifests.read_as_known, manifests.read):
        pointer = read_link(mount, model, label)
        if has_canary and draw is not None:
            canary = read_canary(mount, model, label, pointer.version)
            if canary is not None and draw(canary.version) < canary.share:
                pointer = canary
        if pointer.text == REMOVED:
            raise ModelNotFound(
                f"{mount.path_of(model)}: the model was removed; publish it again, or activate a"
                " version that is still there"
            )
        if pointer.text[:1] == "{":
            return manifests.parse(_encode(pointer.text), _path(mount, model, name))
        try:
            return read_manifest(mount, model, pointer.text)
        except FileNotFoundError:
            # 1. A prune removed it, and another was active before that; or
            # 2. this host's client only remembers that it was missing.
            mount.refresh(folder)
    assert pointer is not None
    raise CorruptEntryError(
        _path(mount, model, name),
        f"it names version {pointer.text}, which is missing; activate another",
    )


def read_or_none(mount: Mount, model: str, label: str | None = None) -> Pointer | None:
    """Return CURRENT or the label, as the server has it now; None if that is unknown.

    Damage and a newer format are logged: no version counts as active then.
    """
    mount.refresh(layout.version_folder(model, ""))
    return known_or_none(mount, model, label)


def known_or_none(mount: Mount, model: str, label: str | None = None) -> Pointer | None:
    """Like `read_or_none`, but as this host's NFS client knows it."""
    try:
        return read_link(mount, model, label)
    except FileNotFoundError:
        return None
    except (CorruptEntryError, UnknownFormatError) as error:
        events.log(
            "warning",
            "%s; no version counts as active",
            error,
            kind="model",
            event="pointer_damaged",
            path=error.path,
            error=type(error).__name__,
        )
        return None


def write(
    mount: Mount, model: str, label: str | None, manifest: Manifest | None, previous: str
) -> None:
    """Point CURRENT or the label to a version, durably and in one step; None: it was removed."""
    tail = f"\t{previous}" if previous else ""
    if manifest is None:
        name, folder = layout.pointer_name(label), layout.version_folder(model, "")
        links.replace(mount, folder, name, f"{REMOVED}{tail}")
    else:
        _write(mount, model, layout.pointer_name(label), manifest, tail)


def write_canary(
    mount: Mount, model: str, label: str | None, manifest: Manifest, share: float, beside: str
) -> None:
    """Have the part `share` of the environments serve a version beside the version `beside`."""
    _write(mount, model, layout.canary_name(label), manifest, f"\t{share!r}\t{beside}")


def _write(mount: Mount, model: str, name: str, manifest: Manifest, tail: str) -> None:
    folder, text = layout.version_folder(model, ""), manifest.encoded.decode() + tail
    if len(text) <= links.LONGEST:
        try:
            links.replace(mount, folder, name, text)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:  # some local file systems take 1,000 bytes
                raise
        else:
            return
    links.replace(mount, folder, name, manifest.version + tail)
