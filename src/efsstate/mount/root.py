"""Choose the root folder, and open it."""

from __future__ import annotations

import os
import stat

from efsstate import process
from efsstate.errors import RootError
from efsstate.mount.environment import on_lambda, signing_key, variable
from efsstate.mount.files import Mount

_DEFAULT, _UNNAMED = "/mnt/efs", ".efsstate"
_MODE = 0o700
_known: dict[tuple[str | None, str | None, str | None], Mount] = {}
_relative: dict[str, str] = {}  # EFSSTATE_ROOT as it was first seen -> its absolute path


@process.at_reset
def _forget() -> None:
    """Close the roots."""
    _known.clear()
    _relative.clear()


_FIX = "set EFSSTATE_ROOT to a folder on the mount, such as /mnt/efs/app, or pass root="


def scratch(name: str) -> Mount:
    """Return this user's own folder `name` in TMPDIR, else /tmp.

    It is for copies that the processes of an environment share. Raise `RootError` if it is another
    user's, or others may write to it.
    """
    above = os.path.abspath(variable("TMPDIR") or "/tmp")  # noqa: S108
    path = os.path.join(above, f"{name}-{os.geteuid()}")
    try:
        os.makedirs(path, _MODE, exist_ok=True)
        status = os.lstat(path)
    except OSError as error:
        process.raise_of_handler(error)
        raise RootError(
            f"{path}: can't be created: {error.strerror}; set TMPDIR to a folder that is writable"
        ) from error
    # The name can be guessed, and /tmp is open to all; another user's folder must not pass for
    # ours.
    # MUT: a-scratch-folder-of-somebody-elses
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise RootError(
            f"{path}: not a folder that only uid {os.geteuid()} may write to; remove it, or set"
            " TMPDIR"
        )
    return Mount(path)


def absolute(root: str | os.PathLike[str] | None) -> str | None:
    """Return `root=` as an absolute path: a later `chdir` must not lead to another root."""
    if root is None:
        return None
    path = os.fspath(root)
    return os.path.abspath(path) if path and path[0] != "/" and "\0" not in path else path


def resolve(
    root: str | os.PathLike[str] | None = None, *, durable: bool = False, reading: bool = False
) -> Mount:
    """Return the mount of `root`; else EFSSTATE_ROOT, /mnt/efs, or the only mount below /mnt.

    The last one only on Lambda. Without any of these it is `./.efsstate`, with one warning; but for
    `durable` state `RootError`, because that must not land on a throw-away disk by mistake.

    A named root that is missing is created by the first write; until then it is empty. Raise
    `RootError` if it can't be, is a file, is not mounted, or, if `durable` and not only `reading`,
    is not writable.
    """
    path = absolute(root)
    wanted = (path, variable("EFSSTATE_ROOT"), variable("EFSSTATE_SIGNING_KEY"))
    mount = _known.get(wanted)
    if mount is None:
        # No lock is held meanwhile: every root would wait for one that hangs, and a forked child
        # for ever.
        mount = _known.setdefault(wanted, _open_root(path, durable=durable))
    if durable:
        _require_durable(mount, reading=reading)
    return mount


def require_present(root: str | os.PathLike[str] | None) -> None:
    """Raise `RootError` if the root does not exist: for commands, where a name may be mistyped."""
    mount = resolve(root, durable=True, reading=True)
    if not mount.is_present:
        source = _choose(absolute(root))[1]
        raise RootError(f"{mount.path}: the root ({source}) does not exist; {_FIX}")


def place(given: str | None) -> str:
    """Return the path that `resolve` would take, as named, without asking the file system."""
    return absolute(given) or _from_environment() or _DEFAULT


def _from_environment() -> str | None:
    """Return EFSSTATE_ROOT; a relative one as it was when this process first saw it."""
    named = variable("EFSSTATE_ROOT")
    if named is None or named[0] == "/":
        return named
    return _relative.setdefault(named, os.path.abspath(named))


def _open_root(given: str | None, *, durable: bool) -> Mount:
    path, source, named = _choose(given)
    path = os.path.abspath(path)
    if not named:
        if durable:
            raise _unnamed(path)  # before it is created
        _create_unnamed(path)
    try:
        mount = Mount(
            path, key=signing_key(), named=named, create_root=lambda: _create(path, source)
        )
    except NotADirectoryError:
        raise _not_a_directory(path, source) from None
    except PermissionError as error:
        raise RootError(
            f"{path}: the root ({source}) can't be read: {error.strerror}; give the folder to the"
            f" access point's user (now uid {os.geteuid()})"
        ) from None
    if mount.is_present and on_lambda() and path.startswith("/mnt/") and not _is_mounted(path):
        raise _not_mounted(path, source)
    return mount


def _create(path: str, source: str) -> None:
    """Create a named root, parents included: there is no shell on EFS to do it.

    A disk that is not mounted must not be mistaken for the mount: so on Lambda, and below /mnt,
    only if a mount point lies at or above it.
    """
    # MUT: no-root-is-created-beside-the-mount
    if (on_lambda() or path.startswith("/mnt/")) and not _is_mounted(path):
        raise _not_mounted(path, source)
    parent = os.path.dirname(path)
    while not os.path.exists(parent):
        parent = os.path.dirname(parent)
    owner, created = os.stat(parent), path
    try:
        os.makedirs(path, exist_ok=True)
        while created != parent and os.geteuid() == 0:
            os.chown(created, owner.st_uid, owner.st_gid)
            created = os.path.dirname(created)
    except (FileExistsError, NotADirectoryError):
        raise _not_a_directory(path, source) from None
    except OSError as error:
        process.raise_of_handler(error)
        raise RootError(
            f"{path}: the root ({source}) does not exist, and can't be created: {error.strerror};"
            f" {_FIX}"
        ) from error


def _create_unnamed(path: str) -> None:
    try:
        os.makedirs(path, _MODE, exist_ok=True)
    except OSError as error:
        process.raise_of_handler(error)
        raise RootError(
            f"{path}: no root was named, and the default can't be created: {error.strerror}; {_FIX}"
        ) from error
    from efsstate import events

    fix = f"{_FIX} (the command: --root)"  # the command can't change the text of a log line
    events.log(
        "warning",
        "no root was named: caching in %s; %s",
        path,
        fix,
        kind="root",
        event="unnamed",
        path=path,
        once="unnamed root",
    )


def _not_a_directory(path: str, source: str) -> RootError:
    return RootError(f"{path}: the root ({source}) is not a directory; {_FIX}")


def _not_mounted(path: str, source: str) -> RootError:
    return RootError(
        f"{path}: the root ({source}) is not mounted; add the file system to the function's"
        " configuration, with this local mount path"
    )


def _choose(given: str | None) -> tuple[str, str, bool]:
    if given is not None:
        if not given or "\0" in given:
            raise RootError(f"root={given!r}: not a path; {_FIX}")
        return given, "root=", True
    named = _from_environment()
    if named is not None:
        return named, "EFSSTATE_ROOT", True
    if os.path.ismount(_DEFAULT):
        return _DEFAULT, "the default", True
    if not on_lambda():
        return _UNNAMED, "the default", False
    try:
        mounts = [
            f"/mnt/{name}" for name in sorted(os.listdir("/mnt")) if os.path.ismount(f"/mnt/{name}")
        ]
    except OSError as error:
        process.raise_of_handler(error)
        mounts = []
    if len(mounts) == 1:
        return mounts[0], "the only mount", True
    mounted = "no file system is mounted"
    if mounts:
        mounted = f"several file systems are mounted ({', '.join(mounts)})"
    raise RootError(f"/mnt: no root: {mounted} below it; {_FIX}")


def _is_mounted(path: str) -> bool:
    while path not in ("/mnt", "/", ""):
        if os.path.ismount(path):
            return True
        path = os.path.dirname(path)
    return False


def _unnamed(path: str) -> RootError:
    return RootError(
        f"{path}: no root was named, and this state must not be lost with a throw-away disk; {_FIX}"
    )


def _require_durable(mount: Mount, *, reading: bool) -> None:
    if not mount.named:
        raise _unnamed(mount.path)
    if not reading:
        mount.handle("", make=True)
    if not reading and not os.access(mount.path, os.W_OK | os.X_OK):
        raise RootError(
            f"{mount.path}: the root is not writable for uid {os.geteuid()}; give the folder to the"
            " access point's user, and the function elasticfilesystem:ClientWrite"
        )
