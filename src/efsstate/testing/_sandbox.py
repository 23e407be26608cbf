"""The command that starts a runtime: a task root that is read-only, packages of its own."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# $1 is the task root, $2 a file with the folders inside it that stay writable; the command follows.
_SCRIPT = """
root=$1; writable=$2; shift 2
mount --bind "$root" "$root" || exit 125
while IFS= read -r folder; do mount --bind "$folder" "$folder" || exit 125; done < "$writable"
mount -o remount,bind,ro "$root" || exit 125
cd "$root" && exec "$@"
"""
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
    """Return True if this process may make a task root read-only: it is root, on Linux."""
    unshare = shutil.which("unshare")
    if unshare is None or os.geteuid() != 0:
        return False
    try:
        probe = [unshare, "-m", "mount", "--bind", "/", "/"]
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0  # noqa: S603
    except OSError:
        return False


def command(python: str, handler: str, *, isolated: bool) -> list[str]:
    """Return the command of the runtime client; `isolated` leaves out this machine's packages."""
    options = ["-S"] if isolated else []
    return [python, *options, "-m", "awslambdaric", handler]


def read_only(
    command: list[str], root: str, folder: str, variables: Mapping[str, str]
) -> list[str]:
    """Return a command that runs `command` with `root` read-only, if that can be done.

    A folder inside the root that a variable names, such as EFSSTATE_ROOT, stays writable.
    """
    if not can_mount() or not os.path.isdir(root):
        return command
    inside = [
        value
        for value in variables.values()
        if value.startswith(root + os.sep) and os.path.isdir(value)
    ]
    listing = os.path.join(folder, "writable")
    with open(listing, "w", encoding="utf-8") as file:
        file.writelines(f"{value}\n" for value in sorted(set(inside)))
    return ["unshare", "-m", "sh", "-c", _SCRIPT, "sh", root, listing, *command]


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
