"""What a version is made of: its manifest to bytes and back, and the rules for names in it."""

from __future__ import annotations

import stat

from efsstate import events
from efsstate.errors import CorruptEntryError, UnknownFormatError
from efsstate.format import layout
from efsstate.mount import links, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.format.entry import Entry
    from efsstate.mount.files import Mount

CODEC = "json"
_LONGEST_NAME, _LONGEST_PATH = 255, 1024
_DIGEST = 64  # hex digits of SHA-256


class Manifest:
    """One version's files: `files` maps a path below the version's folder to (bytes, SHA-256 in hex)."""

    __slots__ = ("files", "folders", "single", "version")

    def __init__(
        self, version: str, files: dict[str, tuple[int, str]], folders: list[str], *, single: bool
    ) -> None:
        self.version = version
        self.files = files
        self.folders = folders  # the empty ones: the others follow from the files
        self.single = single  # a single file was published, not a folder

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum([size for size, _ in self.files.values()])

    @property
    def content(self) -> str:
        """A digest of names, sizes and contents: the same for the same content, whatever the version is called."""
        from hashlib import sha256

        lines = [
            f"{name}\0{size}\0{digest}\n" for name, (size, digest) in sorted(self.files.items())
        ]
        lines += [f"{name}/\n" for name in sorted(self.folders)]
        return sha256("".join([f"{self.single}\n", *lines]).encode()).hexdigest()

    def encode(self) -> bytes:
        """The payload of the version's manifest, and the text of CURRENT while it is the active one, if it is short."""
        import json

        given = {
            "version": self.version,
            "single": self.single,
            "files": {name: list(found) for name, found in sorted(self.files.items())},
            "folders": sorted(self.folders),
        }
        return json.dumps(given, ensure_ascii=True, separators=(",", ":")).encode()


def decode(entry: Entry, path: str) -> Manifest:
    """The manifest in `entry`, every name and number looked at; `CorruptEntryError` naming `path` if it lies."""
    if entry.codec != CODEC:
        raise CorruptEntryError(
            path, f"its codec is {entry.codec!r}, and a manifest's is {CODEC!r}"
        )
    return parse(bytes(entry.payload), path)


def parse(text: str | bytes, path: str) -> Manifest:
    """The manifest that `encode` made `text` of; errors as in `decode`."""
    import json

    try:
        given = json.loads(text)
        version, single, files, folders = (
            given["version"],
            given["single"],
            given["files"],
            given["folders"],
        )
        well = (
            isinstance(version, str)
            and isinstance(single, bool)
            and isinstance(files, dict)
            and isinstance(folders, list)
            and all(isinstance(name, str) for name in folders)
            and all(_is_file(found) for found in files.values())
            and (len(files) == 1 and "/" not in next(iter(files)) if single else bool(files))
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptEntryError(path, f"not a manifest: {error!r}") from None
    if not well or bad_version(version):
        raise CorruptEntryError(path, "not a manifest: a field is missing or of the wrong kind")
    for name in (*files, *folders):
        if why := bad_name(name):
            raise CorruptEntryError(path, f"it names the file {name!r}: {why}")
    return Manifest(
        version,
        {name: (size, digest) for name, (size, digest) in files.items()},
        folders,
        single=single,
    )


def _is_file(found: object) -> bool:
    if not isinstance(found, list) or len(found) != 2:
        return False
    size, digest = found
    return (
        type(size) is int
        and 0 <= size < 2**63
        and isinstance(digest, str)
        and len(digest) == _DIGEST
    )


def bad_name(name: str) -> str:
    """Why `name` can't be a path below a version's folder; empty if it can."""
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
        if any(c < " " or "\x7f" <= c <= "\x9f" for c in part):
            return "it has control characters"
    return ""


def bad_version(version: str) -> str:
    """Why `version` can't be the id of a version; empty if it can."""
    if not isinstance(version, str):
        return "a string is needed"
    well = version.isascii() and all(c.isalnum() or c in "._-" for c in version)
    if not version or not well or version[0] in ".-" or len(version) > 128:
        return (
            "letters, digits and '. _ -', not beginning with '.' or '-', 128 characters at the most"
        )
    return f"{layout.CURRENT} is what tells the active one" if version == layout.CURRENT else ""


def current(mount: Mount, model: str) -> Manifest:
    """The active version of the model whose folder is `model`, as this host's client knows it (refresh to be sure).

    Raises `FileNotFoundError`, `CorruptEntryError`, `SignatureError`, `UnknownFormatError`, `OSError`.
    """
    folder = layout.version_folder(model, "")
    path = mount.path_of(folder, layout.CURRENT)
    for look in (_read, read):
        text = links.read(mount, folder, layout.CURRENT, certain=True)
        if text[:1] == "{":
            return parse(text, path)
        if why := bad_version(text):
            raise CorruptEntryError(path, f"it names the version {text[:200]!r}: {why}")
        try:
            return look(mount, model, text)
        except (
            FileNotFoundError
        ):  # a prune took it, and another was active before; or this client remembers it so
            mount.refresh(folder)
    raise CorruptEntryError(path, f"it names version {text}, which is missing: activate another")


def active(mount: Mount, model: str) -> Manifest | None:
    """The same, as the server has it now; None, with a warning, where that can't be told: by damage, or a newer format."""
    mount.refresh(layout.version_folder(model, ""))
    try:
        return current(mount, model)
    except FileNotFoundError:
        return None
    except (CorruptEntryError, UnknownFormatError) as error:
        events.log("warning", "%s; no version counts as active", error)
        return None


def set_current(mount: Mount, model: str, made: Manifest) -> None:
    """Make it the active version: the note holds the manifest where that is short, so that a reader needs no more."""
    whole = made.encode().decode()
    folder = layout.version_folder(model, "")
    if len(whole) <= links.LONGEST:
        try:
            links.replace(mount, folder, layout.CURRENT, whole)
        except OSError as error:
            import errno

            if error.errno != errno.ENAMETOOLONG:
                raise
        else:
            return
    links.replace(mount, folder, layout.CURRENT, made.version)


def read(mount: Mount, model: str, version: str) -> Manifest:
    """The manifest of `version`, as the server has it now; errors as in `current`."""
    folder = layout.version_folder(model, version)
    # By name, not by the folder that is open: a prune renames it before it empties it.
    mount.forget(folder)
    mount.refresh(layout.version_folder(model, ""))
    return _read(mount, model, version)


def look(mount: Mount, model: str, version: str) -> Manifest | None:
    """The same, and None where a manifest of ours is there, damaged: what else can't be read is none that we know."""
    try:
        return read(mount, model, version)
    except CorruptEntryError:
        if not _has_manifest(mount, model, version):
            raise
        return None


def ours(mount: Mount, model: str) -> bool:
    """Whether anything in the folder `versions` is ours: a model that was put there by hand may have one of its own."""
    names = mount.names(layout.version_folder(model, ""))
    return layout.CURRENT in names or any(is_ours(mount, model, name) for name in names)


def is_ours(mount: Mount, model: str, name: str) -> bool:
    """Whether we made what has this name in the folder `versions`."""
    return (
        name == layout.CURRENT
        or layout.is_being_published(name)
        or _has_manifest(mount, model, name)
    )


def _has_manifest(mount: Mount, model: str, version: str) -> bool:
    try:
        return stat.S_ISREG(
            mount.stat(layout.version_folder(model, version), layout.MANIFEST).st_mode
        )
    except (FileNotFoundError, CorruptEntryError):
        return False


def _read(mount: Mount, model: str, version: str) -> Manifest:
    folder = layout.version_folder(model, version)
    entry = store.read(mount, folder, layout.MANIFEST)
    path = mount.path_of(folder, layout.MANIFEST)
    found = decode(entry, path)
    if found.version != version:
        raise CorruptEntryError(path, f"it says that it is version {found.version!r}")
    return found
