"""What shuts an environment in: a read-only task root, a /tmp of limited size, own packages."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from efsstate.testing._settings import Settings

# It mounts and then holds its mount namespace open until its input ends, which happens even if the
# tester is killed: no mount is ever left on the machine.
_HOLD = """
tmp=$1; size=$2; root=$3; writable=$4
mount -t tmpfs -o "size=${size}m,mode=1777" tmpfs "$tmp" || exit 125
if [ -n "$root" ]; then
    mount --bind "$root" "$root" || exit 125
    while IFS= read -r folder; do mount --bind "$folder" "$folder" || exit 125; done < "$writable"
    mount -o remount,bind,ro "$root" || exit 125
fi
echo ready
read -r _
"""
# A process that joins a mount namespace stands at its root; it has to come back by name.
_JOIN = 'cd "$0" && exec "$@"'
_PROBE = "mount --bind / / && mount -t tmpfs -o size=1m tmpfs /tmp"
# Lambda's Python brings these beside the standard library.
_PROVIDED = (
    "awslambdaric",
    "simplejson",
    "snapshot_restore_py.py",
    "boto3",
    "botocore",
    "dateutil",
    "jmespath",
    "s3transfer",
    "six.py",
    "urllib3",
)


@functools.cache
def can_mount() -> bool:
    """Return True if this process may mount for an environment: it is root, on Linux."""
    unshare = shutil.which("unshare")
    if unshare is None or shutil.which("nsenter") is None or os.geteuid() != 0:
        return False
    try:
        probe = [unshare, "-m", "sh", "-c", _PROBE]
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0  # noqa: S603
    except OSError:
        return False


class Sandbox:
    """The mount namespace of one environment, which outlives its processes."""

    def __init__(self, settings: Settings, folder: str, tmp: str) -> None:
        """Mount in a new namespace; raise OSError if that fails."""
        self._path = settings.path
        root = settings.path if settings.read_only and os.path.isdir(settings.path) else ""
        listing = os.path.join(folder, "writable")
        inside = _folders_inside(settings.path, settings.variables)
        with open(listing, "w", encoding="utf-8") as file:
            file.writelines(f"{value}\n" for value in inside)
        command = ["unshare", "-m", "sh", "-c", _HOLD, "sh"]
        self._holder = subprocess.Popen(  # noqa: S603
            [*command, tmp, str(settings.ephemeral_storage), root, listing],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            _, problem = self._holder.communicate()
            raise OSError(f"mount: {problem.decode('utf-8', 'replace').strip()}")
        self.tmp = f"/proc/{self._holder.pid}/root{tmp}"
        """The environment's TMPDIR, as this process sees it."""

    def enter(self, command: list[str]) -> list[str]:
        """Return a command that runs `command` inside, in the task root."""
        namespace = f"--mount=/proc/{self._holder.pid}/ns/mnt"
        return ["nsenter", namespace, "sh", "-c", _JOIN, self._path, *command]

    def close(self) -> None:
        """Give the namespace up; its mounts go with its last process."""
        for stream in (self._holder.stdin, self._holder.stdout, self._holder.stderr):
            if stream is not None:
                stream.close()
        self._holder.wait()


def size_of(folder: str) -> int:
    """Return the bytes of all files below a folder."""
    size = 0
    for here, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.lstat(os.path.join(here, name)).st_size
            except OSError:  # removed meanwhile
                pass
    return size


def command(python: str, handler: str, *, isolated: bool) -> list[str]:
    """Return the command of the runtime client; `isolated` leaves out this machine's packages."""
    options = ["-S"] if isolated else []
    return [python, *options, "-m", "awslambdaric", handler]


def provide_runtime(folder: str) -> str:
    """Return a folder with links to this machine's copies of the packages of Lambda's Python."""
    import glob
    import importlib.util

    runtime = os.path.join(folder, "runtime")
    os.makedirs(runtime, exist_ok=True)
    spec = importlib.util.find_spec("awslambdaric")
    if spec is None or spec.origin is None:
        raise OSError("awslambdaric is not installed; pip install 'efsstate[testing]'")
    site = os.path.dirname(os.path.dirname(spec.origin))
    paths = [os.path.join(site, name) for name in _PROVIDED]
    paths += glob.glob(os.path.join(glob.escape(site), "runtime_client*.so"))
    for path in paths:
        link = os.path.join(runtime, os.path.basename(path))
        if os.path.exists(path) and not os.path.lexists(link):
            os.symlink(path, link)
    return runtime


def _folders_inside(root: str, variables: Mapping[str, str]) -> list[str]:
    """Return the folders inside the root that a variable names, which stay writable."""
    inside = {
        value
        for value in variables.values()
        if value.startswith(root + os.sep) and os.path.isdir(value)
    }
    return sorted(inside)
