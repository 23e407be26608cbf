"""Which folder the root is, and the only reader of the environment."""

from __future__ import annotations

import os
import stat

from efsstate.errors import RootError
from efsstate.format import entry
from efsstate.mount.files import Mount

_DEFAULT, _UNNAMED = "/mnt/efs", ".efsstate"
_MODE = 0o700
_known: dict[tuple[str | None, str | None, str | None], Mount] = {}
_FIX = "set EFSSTATE_ROOT to a folder on the mount, such as /mnt/efs/app, or pass root="


def variable(name: str) -> str | None:
    """The environment variable `name`, or None where it is unset or empty."""
    return os.environ.get(name) or None


def on_lambda() -> bool:
    """Whether this is a Lambda execution environment."""
    return variable("AWS_LAMBDA_FUNCTION_NAME") is not None


def function_name() -> str | None:
    """The Lambda function's name."""
    return variable("AWS_LAMBDA_FUNCTION_NAME")


def function_memory() -> int | None:
    """The Lambda function's memory, in bytes."""
    text = variable("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
    return int(text) * 2**20 if text and text.isdigit() else None


def disabled() -> bool:
    """Whether EFSSTATE_DISABLE turns caching off."""
    return (variable("EFSSTATE_DISABLE") or "0").lower() not in ("0", "false", "no", "off")


def signing_key() -> bytes | None:
    """The key that EFSSTATE_SIGNING_KEY gives, 32 bytes."""
    text = variable("EFSSTATE_SIGNING_KEY")
    if text is None:
        return None
    return bytes(entry.blake2b()(text.encode(), digest_size=32).digest())


def scratch(name: str) -> Mount:
    """This user's own folder `name` in TMPDIR, else /tmp: for copies that the processes of an environment share.

    `RootError` where it is somebody else's, or others may write to it.
    """
    path = os.path.join(os.path.abspath(variable("TMPDIR") or "/tmp"), f"{name}-{os.geteuid()}")  # noqa: S108
    try:
        os.makedirs(path, _MODE, exist_ok=True)
        found = os.lstat(path)
    except OSError as error:
        raise RootError(
            f"{path}: can't be made: {error.strerror}: set TMPDIR to a folder that is writable"
        ) from error
    # The name can be guessed, and /tmp is open to all: what another user put there must not be taken for ours.
    # MUT: a-scratch-folder-of-somebody-elses
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise RootError(
            f"{path}: not a folder that uid {os.geteuid()} alone may write to: remove it, or set TMPDIR"
        )
    return Mount(path)


def resolve(
    root: str | os.PathLike[str] | None = None, *, durable: bool = False, reading: bool = False
) -> Mount:
    """The mount that `root` names; else EFSSTATE_ROOT; else /mnt/efs; else the only mount under /mnt on Lambda.

    Elsewhere it is `./.efsstate`, with one warning, but for `durable` state `RootError`: that must not land on a
    throw-away disk by mistake. `RootError` also for what is missing, a file, not mounted, or (durable, unless only `reading`) not writable.
    """
    given = None if root is None else os.fspath(root)
    wanted = (given, variable("EFSSTATE_ROOT"), variable("EFSSTATE_SIGNING_KEY"))
    mount = _known.get(wanted)
    if mount is None:
        # No lock is held meanwhile: it would make every root wait for one that hangs, and a fork's child for ever.
        mount = _known.setdefault(wanted, _open(given, durable=durable))
    if durable:
        _demand_durable(mount, reading=reading)
    return mount


def place(given: str | None) -> str:
    """What names the root that `resolve` would take, without asking the file system."""
    return os.path.abspath(given or variable("EFSSTATE_ROOT") or _DEFAULT)


def _open(given: str | None, *, durable: bool = False) -> Mount:
    path, source, named = _choose(given)
    path = os.path.abspath(path)
    if not named:
        if durable:
            raise _unnamed(path)  # before it is made
        try:
            os.makedirs(path, _MODE, exist_ok=True)
        except OSError as error:
            raise RootError(
                f"{path}: no root was named, and the default can't be made: {error.strerror}: {_FIX}"
            ) from error
        from efsstate import events

        fix = f"{_FIX} (the command: --root)"  # the command has no hand in what is logged
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
            f"{path}: the root ({source}) does not exist: mkdir -p {path}, or {_FIX}"
        ) from None
    except NotADirectoryError:
        raise RootError(f"{path}: the root ({source}) is not a directory: {_FIX}") from None
    except PermissionError as error:
        raise RootError(
            f"{path}: the root ({source}) can't be read: {error.strerror}: give the access point's user (now uid"
            f" {os.geteuid()}) the folder"
        ) from None
    if on_lambda() and path.startswith("/mnt/") and not _mounted(path):
        raise RootError(
            f"{path}: the root ({source}) is not mounted: add the file system to the function's configuration, with this"
            " local mount path"
        )
    return mount


def _choose(given: str | None) -> tuple[str, str, bool]:
    if given is not None:
        if not given or "\0" in given:
            raise RootError(f"root={given!r}: not a path: {_FIX}")
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
    found = (
        f"several file systems are mounted ({', '.join(mounts)})"
        if mounts
        else "no file system is mounted"
    )
    raise RootError(f"/mnt: no root: {found} below it: {_FIX}")


def _mounted(path: str) -> bool:
    while path not in ("/mnt", "/", ""):
        if os.path.ismount(path):
            return True
        path = os.path.dirname(path)
    return False


def _unnamed(path: str) -> RootError:
    return RootError(
        f"{path}: no root was named, and this state must not be lost with a throw-away disk: {_FIX}"
    )


def _demand_durable(mount: Mount, *, reading: bool) -> None:
    if not mount.named:
        raise _unnamed(mount.path)
    if not reading and not os.access(mount.path, os.W_OK | os.X_OK):
        raise RootError(
            f"{mount.path}: the root is not writable for uid {os.geteuid()}: give the access point's user the folder, and"
            " the function elasticfilesystem:ClientWrite"
        )
