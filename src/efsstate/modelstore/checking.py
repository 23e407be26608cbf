"""Verification: every byte of every version of a model, compared with the manifests."""

from __future__ import annotations

import stat

from efsstate import process
from efsstate.errors import (
    CorruptEntryError,
    DeadlineExceeded,
    EfsStateError,
    ModelNotFound,
    UnknownFormatError,
)
from efsstate.format import layout
from efsstate.modelstore import manifest as manifests
from efsstate.modelstore import pointer, reader
from efsstate.modelstore.open_file import OpenFile
from efsstate.parallel import Batch, each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from efsstate.modelstore.catalog import Version
    from efsstate.modelstore.manifest import Manifest
    from efsstate.mount.files import Mount

    Finding = tuple[str, str, str]  # the path, the fault, and the remedy

# Publishing again compares sizes, and so mends their faults. It does not compare bytes.
_PUBLISH_AGAIN = "publish it again, or activate another version"
_PUBLISH_ANEW = "activate another version, or publish it under a new id"


def check(
    mount: Mount, model: str, versions: list[Version], progress: Callable[[int, int], object] | None
) -> list[Finding]:
    """Return a finding for each fault of `versions` and of CURRENT; [] if all is well."""
    total = sum([version.bytes for version in versions])
    batch = Batch(mount.path_of(model), total, "checked", progress=progress)
    names = mount.names(layout.version_folder(model, ""))
    findings: list[Finding] = []
    for label in (None, *layout.labels(names)):
        findings += _check_pointer(mount, model, label, versions)
    for version in versions:
        folder = layout.version_folder(model, version.id)
        try:
            manifest = manifests.read(mount, model, version.id)
        except FileNotFoundError:
            if version.id not in mount.names(layout.version_folder(model, "")):
                continue  # a prune removed it meanwhile
            path = mount.path_of(folder, layout.MANIFEST)
            findings.append((path, "missing: it has no manifest", _PUBLISH_AGAIN))
        except EfsStateError as error:
            findings.append(_finding(error, mount.path_of(folder), _PUBLISH_AGAIN))
        else:
            findings += _check_files(mount, folder, manifest, batch)
            findings += _check_names(mount, folder, manifest)
    return findings


def _check_files(mount: Mount, folder: str, manifest: Manifest, batch: Batch) -> list[Finding]:
    """Compare every byte of the version's files."""

    def check_file(name: str, advance: Callable[[int], None] | None) -> Finding | None:
        return _check_file(mount, folder, name, manifest.files[name], advance, batch)

    sizes = {name: size for name, (size, _) in manifest.files.items()}
    checked = reader.every(sizes, check_file, batch)
    return [finding for _, finding in checked if finding]


def _check_names(mount: Mount, folder: str, manifest: Manifest) -> list[Finding]:
    """Compare the names in the version's folder."""
    known = {*manifest.files, layout.MANIFEST, *[f"{name}/" for name in manifest.folders]}
    parents = {f"{name[:at]}/" for name in known for at, c in enumerate(f"{name}/") if c == "/"}
    present = set(walk(mount, folder))
    findings = [
        (mount.path_of(folder, name), "missing", _PUBLISH_AGAIN)
        for name in manifest.folders
        if f"{name}/" not in present
    ]
    for name in sorted(present - known - parents):
        path = mount.path_of(folder, name)
        findings.append((path, "it was not published with this version", "remove it"))
    return findings


def _finding(error: EfsStateError, path: str, advice: str) -> Finding:
    """Take an error apart: its own path, if it has one, and its own advice."""
    path = getattr(error, "path", path)
    what = str(error).removeprefix(f"{path}: ").removesuffix(": upgrade efsstate")
    what = what.removesuffix("; upgrade efsstate")
    return path, what, "upgrade efsstate" if isinstance(error, UnknownFormatError) else advice


def _check_pointer(
    mount: Mount, model: str, label: str | None, versions: list[Version]
) -> list[Finding]:
    path = mount.path_of(layout.version_folder(model, ""), layout.pointer_name(label))
    try:
        active = pointer.read(mount, model, label)
    except ModelNotFound:
        return []  # the model was removed
    except FileNotFoundError:
        return [(path, "missing: no version is active", "activate one")]
    except EfsStateError as error:
        return [_finding(error, path, "activate a version to write it anew")]
    # A version that came since the versions were listed is there by now.
    is_listed = active.version in [version.id for version in versions]
    if not is_listed and active.version not in mount.names(layout.version_folder(model, "")):
        what = f"it names version {active.version}, which is missing"
        return [(path, what, "activate another")]
    try:
        manifest = manifests.read(mount, model, active.version)
    except (FileNotFoundError, EfsStateError):
        return []  # a finding of the version itself
    if manifest.encoded == active.encoded:
        return []
    what = f"it differs from the manifest of version {active.version}"
    return [(path, what, "activate it again")]


def _check_file(
    mount: Mount,
    folder: str,
    name: str,
    published: tuple[int, str],
    advance: Callable[[int], None] | None,
    batch: Batch,
) -> Finding | None:
    above, _, last = f"{folder}/{name}".rpartition("/")
    path, (size, digest) = mount.path_of(folder, name), published
    try:
        opened = OpenFile(mount, above, last)
        if opened.size != size:
            return path, f"{opened.size} bytes, and {size} were published", _PUBLISH_AGAIN
        actual = reader.copy(opened, None, late=batch.late, advance=advance)
    except FileNotFoundError:
        return path, "missing", _PUBLISH_AGAIN
    except DeadlineExceeded:
        raise
    except OSError as error:
        process.raise_of_handler(error)
        advice = "look at its permissions, and whether the mount answers"
        return path, error.strerror or str(error), advice
    except EfsStateError as error:
        return _finding(error, path, _PUBLISH_AGAIN)
    if actual == digest:
        return None
    return path, "its SHA-256 is not the one that was published", _PUBLISH_ANEW


def find_damage(
    mount: Mount, folder: str, manifest: Manifest, late: Callable[[], str]
) -> tuple[str, str] | None:
    """Return the first path of the version that is missing or has another size, and the reason.

    Return None if it is whole. Its bytes are not read: that takes as long as to publish them.
    """

    def look(name: str) -> str:
        return _judge_size(mount, f"{folder}/{name}", manifest.files[name][0])

    for name, problem in each(look, list(manifest.files), threads=reader.THREADS, late=late):
        if problem:
            return mount.path_of(folder, name), problem
    present = set(walk(mount, folder)) if manifest.folders else set()
    for name in manifest.folders:
        if f"{name}/" not in present:
            return mount.path_of(folder, name), "missing"
    return None


def _judge_size(mount: Mount, path: str, size: int) -> str:
    """Return the fault of the file at `path`; "" if it has `size` bytes."""
    above, _, last = path.rpartition("/")
    try:
        status = mount.stat(above, last)
    except FileNotFoundError:
        return "missing"
    except CorruptEntryError as error:
        return error.reason
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    return "" if status.st_size == size else f"{status.st_size} bytes, and {size} were published"


def walk(mount: Mount, folder: str, below: str = "") -> Iterator[str]:
    """Yield every path below `folder`; those of folders end in "/"."""
    for item in mount.scan(f"{folder}/{below}".rstrip("/")):
        name = f"{below}/{item.name}" if below else item.name
        if item.is_dir(follow_symlinks=False):
            yield f"{name}/"
            yield from walk(mount, folder, name)
        else:
            yield name
