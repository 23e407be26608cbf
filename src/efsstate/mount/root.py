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
process.at_reset(_known.clear)
_FIX = "set EFSSTATE_ROOT to a folder on the mount, such as /mnt/efs/app, or pass root="


def scratch(name: str) -> Mount:
    """Return this user's own folder `name` in TMPDIR, else /tmp.

    It is for copies that the processes of an environment share. Raise `RootError` if it is another
    user's, or others may write to it.
    """
    path = os.path.join(os.path.abspath(variable("TMPDIR") or "/tmp"), f"{name}-{os.geteuid()}")  # noqa: S108
    try:
        os.makedirs(path, _MODE, exist_ok=True)
        status = os.lstat(path)
    except OSError as error:
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


def resolve(
    root: str | os.PathLike[str] | None = None, *, durable: bool = False, reading: bool = False
) -> Mount:
    """Return the mount of `root`; else EFSSTATE_ROOT, /mnt/efs, or the only mount below /mnt.

    The last one only on Lambda. Without any of these it is `./.efsstate`, with one warning; but for
    `durable` state `RootError`, because that must not land on a throw-away disk by mistake. Raise
    `RootError`, too, if the root is missing, a file, not mounted, or, if `durable` and not only
    `reading`, not writable.
    """
    path = None if root is None else os.fspath(root)
    wanted = (path, variable("EFSSTATE_ROOT"), variable("EFSSTATE_SIGNING_KEY"))
    mount = _known.get(wanted)
    if mount is None:
        # No lock is held meanwhile: every root would wait for one that hangs, and a forked child
        # for ever.
        mount = _known.setdefault(wanted, _open_root(path, durable=durable))
    if durable:
        _require_durable(mount, reading=reading)
    return mount


def place(given: str | None) -> str:
    """Return the path that `resolve` would take, as named, without asking the file system."""
    return os.path.abspath(given or variable("EFSSTATE_ROOT") or _DEFAULT)


def _open_root(given: str | None, *, durable: bool = False) -> Mount:
    path, source, named = _choose(given)
    path = os.path.abspath(path)
    if not named:
        if durable:
            raise _unnamed(path)  # before it is made
        try:
            os.makedirs(path, _MODE, exist_ok=True)
        except OSError as error:
            raise RootError(
                f"{path}: no root was named, and the default can't be created:"
                f" {error.strerror}; {_FIX}"
            ) from error
        from efsstate import events

        fix = f"{_FIX} (the command: --root)"  # the command can't change the text of a log line
        events.log(
            "warning",
            "no root was named: caching in %s; %s",
            path,
            fix,
            once="unnamed root",
            root=path,
        )
    try:
        mount = Mount(path, key=signing_key(), named=named)
    except FileNotFoundError:
        raise RootError(
            f"{path}: the root ({source}) does not exist; mkdir -p {path}, or {_FIX}"
        ) from None
    except NotADirectoryError:
        raise RootError(f"{path}: the root ({source}) is not a directory; {_FIX}") from None
    except PermissionError as error:
        raise RootError(
            f"{path}: the root ({source}) can't be read: {error.strerror}; give the folder to the"
            f" access point's user (now uid {os.geteuid()})"
        ) from None
    if on_lambda() and path.startswith("/mnt/") and not _is_mounted(path):
        raise RootError(
            f"{path}: the root ({source}) is not mounted; add the file system to the function's"
            " configuration, with this local mount path"
        )
    return mount


def _choose(given: str | None) -> tuple[str, str, bool]:
    if given is not None:
        if not given or "\0" in given:
            raise RootError(f"root={given!r}: not a path; {_FIX}")
        return given, "root=", True
    named = variable("EFSSTATE_ROOT")
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
    except OSError:
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
    if not reading and not os.access(mount.path, os.W_OK | os.X_OK):
        raise RootError(
            f"{mount.path}: the root is not writable for uid {os.geteuid()}; give the folder to the"
            " access point's user, and the function elasticfilesystem:ClientWrite"
        )
