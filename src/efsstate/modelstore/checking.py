"""Every byte of every version of a model, compared with what was published."""

from __future__ import annotations

import stat
import time

from efsstate.errors import CorruptEntryError, DeadlineExceeded, EfsStateError, UnknownFormatError
from efsstate.format import layout
from efsstate.modelstore import manifest as manifests
from efsstate.modelstore import reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from efsstate.modelstore.versions import Version
    from efsstate.mount.files import Mount

    Finding = tuple[str, str, str]  # the path, what is wrong there, and what to do

_AGAIN = "publish it again, or activate another version"  # heals what sizes tell of: publishing looks at them
_ANEW = "activate another version, or publish it under a new id"


def check(
    mount: Mount, model: str, versions: list[Version], progress: Callable[[int, int], object] | None
) -> list[Finding]:
    """What is wrong; empty if all is well."""
    wrong = _current(mount, model, versions)
    total, done, started = sum([one.bytes for one in versions]), 0, time.monotonic()

    def add(amount: int) -> None:
        nonlocal done
        done += amount
        if progress is not None:
            progress(done, total)

    def late() -> str:
        return (
            f"{mount.path_of(model)}: {reader.mib(done)} of {reader.mib(total)} checked in"
            f" {time.monotonic() - started:.1f} s when the deadline came"
        )

    for one in versions:
        folder = layout.version_folder(model, one.id)
        try:
            made = manifests.read(mount, model, one.id)
        except FileNotFoundError:
            if one.problem is None:
                raise
            wrong.append(
                (mount.path_of(folder, layout.MANIFEST), "missing: it has no manifest", _AGAIN)
            )
            continue
        except EfsStateError as error:
            wrong.append(_told(error, mount.path_of(folder), _AGAIN))
            continue

        def look(
            name: str,
            advance: Callable[[int], None] | None,
            folder: str = folder,
            made: manifests.Manifest = made,
        ) -> Finding | None:
            return _file(mount, folder, name, *made.files[name], advance, late)

        sizes = {name: size for name, (size, _) in made.files.items()}
        wrong += [why for _, why in reader.every(sizes, look, late=late, done=add) if why]
        known = {*made.files, layout.MANIFEST, *[f"{name}/" for name in made.folders]}
        parents = {f"{name[:at]}/" for name in known for at, c in enumerate(f"{name}/") if c == "/"}
        there = set(walk(mount, folder))
        wrong += [
            (mount.path_of(folder, name), "missing", _AGAIN)
            for name in made.folders
            if f"{name}/" not in there
        ]
        extra = sorted(there - known - parents)
        wrong += [
            (mount.path_of(folder, name), "it was not published with this version", "remove it")
            for name in extra
        ]
    return wrong


def _told(error: EfsStateError, where: str, do: str) -> Finding:
    """An error apart: its own path, if it has one, and its own advice."""
    where = getattr(error, "path", where)
    what = str(error).removeprefix(f"{where}: ").removesuffix(": upgrade efsstate")
    return where, what, "upgrade efsstate" if isinstance(error, UnknownFormatError) else do


def _current(mount: Mount, model: str, versions: list[Version]) -> list[Finding]:
    path = mount.path_of(layout.version_folder(model, ""), layout.CURRENT)
    try:
        made = manifests.current(mount, model)
    except FileNotFoundError:
        return [(path, "missing: no version is active", "activate one")]
    except EfsStateError as error:
        return [_told(error, path, "activate a version to write it anew")]
    if made.version not in [one.id for one in versions]:
        return [(path, f"it names version {made.version}, which is missing", "activate another")]
    try:
        same = manifests.read(mount, model, made.version).encode() == made.encode()
    except (FileNotFoundError, EfsStateError):
        return []  # told of the version itself
    what = f"it is not what the manifest of version {made.version} says"
    return [] if same else [(path, what, "activate it again")]


def _file(
    mount: Mount,
    folder: str,
    name: str,
    size: int,
    digest: str,
    advance: Callable[[int], None] | None,
    late: Callable[[], str],
) -> Finding | None:
    above, _, last = f"{folder}/{name}".rpartition("/")
    path = mount.path_of(folder, name)
    try:
        opened = reader.Opened(mount, above, last)
        if opened.size != size:
            return path, f"{opened.size} bytes, and {size} were published", _AGAIN
        found = reader.copy(opened, None, late=late, done=advance)
    except FileNotFoundError:
        return path, "missing", _AGAIN
    except DeadlineExceeded:
        raise
    except OSError as error:
        return (
            path,
            error.strerror or str(error),
            "look at its permissions, and whether the mount answers",
        )
    except EfsStateError as error:
        return _told(error, path, _AGAIN)
    return (
        None if found == digest else (path, "its SHA-256 is not the one that was published", _ANEW)
    )


def lacking(
    mount: Mount, folder: str, made: manifests.Manifest, late: Callable[[], str]
) -> tuple[str, str] | None:
    """The first path of the version in `folder` that is missing or has another size, and how so; None if it is whole.

    Its bytes are not read: that takes as long as to publish them.
    """

    def look(name: str) -> str:
        size, (above, _, last) = made.files[name][0], f"{folder}/{name}".rpartition("/")
        try:
            found = mount.stat(above, last)
        except FileNotFoundError:
            return "missing"
        except CorruptEntryError as error:
            return error.reason
        if not stat.S_ISREG(found.st_mode):
            return "not a regular file"
        return "" if found.st_size == size else f"{found.st_size} bytes, and {size} were published"

    for name, what in reader.each(look, list(made.files), threads=reader.THREADS, late=late):
        if what:
            return mount.path_of(folder, name), what
    there = set(walk(mount, folder)) if made.folders else set()
    return next(
        (
            (mount.path_of(folder, name), "missing")
            for name in made.folders
            if f"{name}/" not in there
        ),
        None,
    )


def walk(mount: Mount, folder: str, below: str = "") -> Iterator[str]:
    """The paths of all that is in `folder`; those of folders end in "/"."""
    for found in mount.scan(f"{folder}/{below}".rstrip("/")):
        name = f"{below}/{found.name}" if below else found.name
        if found.is_dir(follow_symlinks=False):
            yield f"{name}/"
            yield from walk(mount, folder, name)
        else:
            yield name
