"""Manifests: the files of a version, to bytes and back, and the rules for the names in it."""

from __future__ import annotations

import stat

from efsstate.errors import CorruptEntryError
from efsstate.format import entry as codec_entry
from efsstate.format import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from efsstate.format.entry import Entry
    from efsstate.mount.files import Mount

CODEC = "json"
_LONGEST_NAME, _LONGEST_PATH, _LONGEST_ID = 255, 1024, 128
MAX_META = 16 << 10  # bytes of the publisher's own values, as JSON
_DIGEST = 64  # hex digits of SHA-256
_ID = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_CONTROL = frozenset(map(chr, (*range(0x20), *range(0x7F, 0xA0))))


class Manifest:
    """The files of one version.

    `files` maps a path below the version's folder to (bytes, SHA-256 in hex). `folders` are the
    empty ones; the others follow from the files. `executables` are the files with an executable
    bit. `single` is True if a file was published, not a folder. `meta` are the publisher's own
    values. It is not changed once it is made.
    """

    __slots__ = ("_encoded", "executables", "files", "folders", "meta", "single", "version")

    def __init__(
        self,
        version: str,
        files: dict[str, tuple[int, str]],
        folders: list[str],
        *,
        executables: frozenset[str] = frozenset(),
        single: bool,
        meta: dict[str, Any] | None = None,
        encoded: bytes | None = None,
    ) -> None:
        self.version = version
        self.files = files
        self.folders = folders
        self.executables = executables
        self.single = single
        self.meta = meta or {}
        self._encoded = encoded

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum([size for size, _ in self.files.values()])

    def only(self, name: str) -> Manifest:
        """Return the manifest of the file `name` alone."""
        executables = self.executables & {name}
        files = {name: self.files[name]}
        return Manifest(self.version, files, [], executables=executables, single=False)

    @property
    def content(self) -> str:
        """Return a digest of all but the id."""
        from hashlib import sha256

        lines = [f"{self.single}\n"]
        for name, (size, digest) in sorted(self.files.items()):
            mark = "\0x" if name in self.executables else ""
            lines.append(f"{name}\0{size}\0{digest}{mark}\n")
        lines += [f"{name}/\n" for name in sorted(self.folders)]
        if self.meta:
            lines.append(encode_meta(self.meta))
        return sha256("".join(lines).encode()).hexdigest()

    @property
    def encoded(self) -> bytes:
        """Return the payload of the manifest's file: identical for identical versions."""
        if self._encoded is None:
            import json

            fields: dict[str, Any] = {
                "version": self.version,
                "single": self.single,
                "files": dict(sorted(self.files.items())),
                "folders": sorted(self.folders),
            }
            if self.executables:
                fields["executables"] = sorted(self.executables)
            if self.meta:
                fields["meta"] = self.meta
            text = json.dumps(fields, ensure_ascii=True, separators=(",", ":"))
            self._encoded = text.encode()
        return self._encoded


def decode(entry: Entry, path: str) -> Manifest:
    """Return the manifest in `entry`; raise CorruptEntryError naming `path` if a field is bad."""
    if entry.codec != CODEC:
        why = f"its codec is {entry.codec!r}, and a manifest's is {CODEC!r}"
        raise CorruptEntryError(path, why)
    return parse(bytes(entry.payload), path)


def parse(encoded: bytes, path: str) -> Manifest:
    """Return the manifest that was `encoded`; errors as in `decode`."""
    import json

    try:
        fields = json.loads(encoded)
        manifest = Manifest(
            fields["version"],
            {name: (size, digest) for name, (size, digest) in fields["files"].items()},
            fields["folders"],
            executables=frozenset(fields.get("executables", ())),
            single=fields["single"],
            meta=fields.get("meta"),
            encoded=encoded,
        )
        is_sound = _is_sound(manifest)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptEntryError(path, f"not a manifest: {error!r}") from None
    if not is_sound:
        raise CorruptEntryError(path, "not a manifest: a field is missing or of the wrong kind")
    for name in (*manifest.files, *manifest.folders):
        if why := bad_name(name):
            raise CorruptEntryError(path, f"it names the file {name!r}: {why}")
    return manifest


def _is_sound(manifest: Manifest) -> bool:
    """Return True if every field but the names has its type and range."""
    for size, digest in manifest.files.values():
        if type(size) is not int or not 0 <= size < 2**63:
            return False
        if not isinstance(digest, str) or len(digest) != _DIGEST:
            return False
    if not isinstance(manifest.single, bool) or not isinstance(manifest.folders, list):
        return False
    if not isinstance(manifest.meta, dict) or not set(map(type, manifest.folders)) <= {str}:
        return False
    if manifest.single and (len(manifest.files) != 1 or "/" in next(iter(manifest.files))):
        return False
    is_known = manifest.executables <= manifest.files.keys()
    return bool(manifest.files) and is_known and not bad_version(manifest.version)


def encode_meta(meta: dict[str, Any]) -> str:
    """Return the publisher's values as text; raise TypeError or ValueError if JSON has no such."""
    import json

    text = json.dumps(meta, allow_nan=False, sort_keys=True, separators=(",", ":"))
    if not isinstance(meta, dict) or json.loads(text) != meta:
        raise TypeError(f"meta={meta!r}: a dict of strings to what JSON has is needed")
    if len(text) > MAX_META:
        raise ValueError(f"meta: {len(text):,} bytes as JSON; at most {MAX_META:,} are kept")
    return text


def bad_name(name: str) -> str:
    """Return why `name` cannot be a path below a version's folder; "" if it can."""
    if not name or name[0] == "/":
        return "it is empty or absolute"
    try:
        raw = name.encode()
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    if len(raw) > _LONGEST_PATH:
        return f"it is longer than {_LONGEST_PATH} bytes"
    for part in name.split("/"):
        # MUT: a-models-names-stay-inside
        if part in ("", ".", ".."):
            return f"a part of it is {part!r}"
        if len(part.encode()) > _LONGEST_NAME:
            return f"a part of it is longer than {_LONGEST_NAME} bytes"
        if part.startswith(".nfs"):
            return "names that begin with '.nfs' are the NFS client's own"
        if not _CONTROL.isdisjoint(part):
            return "it has control characters"
    return ""


def bad_version(version: object) -> str:
    """Return why `version` cannot be the id of a version; "" if it can."""
    if not isinstance(version, str):
        return "a string is needed"
    is_well_formed = bool(version) and _ID.issuperset(version) and version[0] not in ".-"
    if not is_well_formed or len(version) > _LONGEST_ID:
        return (
            f"letters, digits and '. _ -', not beginning with '.' or '-', {_LONGEST_ID} characters"
            " at the most"
        )
    return f"{layout.CURRENT} names the active version" if version == layout.CURRENT else ""


def require_version(version: str) -> None:
    """Raise ValueError if `version` cannot be the id of a version."""
    if why := bad_version(version):
        raise ValueError(f"version {version!r} can't be used: {why}")


def bad_label(label: object) -> str:
    """Return why `label` cannot be a label; "" if it can."""
    if isinstance(label, str) and len(label) > 64:
        return "64 characters at the most"
    return bad_version(label)


def read(mount: Mount, model: str, version: str) -> Manifest:
    """Return the manifest of `version`, as the server has it now.

    Raises `FileNotFoundError`, `CorruptEntryError`, `SignatureError`, `UnknownFormatError`,
    `OSError`.
    """
    folder = layout.version_folder(model, version)
    # The folder is opened by its name: an open one may be a folder that a prune has renamed since.
    mount.forget(folder, above=False)
    mount.refresh(layout.version_folder(model, ""))
    return read_as_known(mount, model, version)


def read_as_known(mount: Mount, model: str, version: str) -> Manifest:
    """Like `read`, but as this host's NFS client knows the version, which may be old."""
    folder = layout.version_folder(model, version)
    entry = mount.read_entry(folder, layout.MANIFEST)
    path = mount.path_of(folder, layout.MANIFEST)
    manifest = decode(entry, path)
    if manifest.version != version:
        raise CorruptEntryError(path, f"it says that it is version {manifest.version!r}")
    return manifest


def read_moved(mount: Mount, folder: str, original: str) -> Manifest:
    """Return the manifest of a version in `folder` that was published in the folder `original`."""
    mount.forget(folder, above=False)
    data = mount.read(folder, layout.MANIFEST)
    place, path = f"{original}/{layout.MANIFEST}", mount.path_of(folder, layout.MANIFEST)
    if isinstance(data, tuple) or data is None:
        raise CorruptEntryError(path, "it is too large for a manifest")
    manifest = decode(codec_entry.decode(data, place, mount.path, mount.key), path)
    if manifest.version != original.rpartition("/")[2]:
        raise CorruptEntryError(path, f"it says that it is version {manifest.version!r}")
    return manifest


def read_or_none(mount: Mount, model: str, version: str) -> Manifest | None:
    """Like `read`, but return None if our own manifest exists and is corrupt.

    Raise CorruptEntryError for any other unreadable file: it is not ours to judge.
    """
    try:
        return read(mount, model, version)
    except CorruptEntryError:
        if not _has_manifest(mount, model, version):
            raise
        return None


def has_ours(mount: Mount, model: str) -> bool:
    """Return True if anything in the folder `versions` is ours.

    An unmanaged model may have a folder of that name too.
    """
    names = mount.names(layout.version_folder(model, ""))
    return any(is_ours(mount, model, n) for n in names)


def is_ours(mount: Mount, model: str, name: str) -> bool:
    """Return True if a publication or an activation made `name` in the folder `versions`."""
    if layout.is_pointer(name) or layout.is_being_published(name):
        return True
    return _has_manifest(mount, model, name)


def _has_manifest(mount: Mount, model: str, version: str) -> bool:
    try:
        status = mount.stat(layout.version_folder(model, version), layout.MANIFEST)
    except (FileNotFoundError, CorruptEntryError):
        return False
    return stat.S_ISREG(status.st_mode)
