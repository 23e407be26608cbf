"""Rules for the function's own settings."""

from __future__ import annotations

import re
from collections.abc import Iterator

from efsstate.deploy.findings import Hit, Rule
from efsstate.deploy.linting.stack import Stack
from efsstate.deploy.linting.values import items, known, number, text

SHORT = 10  # seconds


def _mount_path(stack: Stack) -> Iterator[Hit]:
    for function, mount in stack.mounted():
        path = mount.get("LocalMountPath")
        line = getattr(mount, "lines", {}).get("LocalMountPath") or function.at("FileSystemConfigs")
        if path is None:
            yield Hit(function.name, "no LocalMountPath", line, file=function.file)
        elif known(path) and (not re.fullmatch(r"/mnt/[a-zA-Z0-9_.-]+", path) or len(path) > 160):
            yield Hit(function.name, f"LocalMountPath is {path}", line, file=function.file)


def _too_short(stack: Stack) -> Iterator[Hit]:
    for function, _ in stack.mounted():
        value = function.get("Timeout")
        seconds = number(value)
        if value is None:
            yield Hit(
                function.name,
                "no Timeout: the default is 3 s",
                function.line,
                "note",
                function.file,
            )
        elif seconds is not None and seconds < SHORT:
            yield Hit(
                function.name,
                f"Timeout is {seconds:g} s",
                function.at("Timeout"),
                file=function.file,
            )


def _snap_start(stack: Stack) -> Iterator[Hit]:
    for function in stack.functions():
        value = text(function.get("SnapStart", "ApplyOn"))
        if value and value != "None" and items(function.get("FileSystemConfigs")):
            yield Hit(
                function.name,
                f"SnapStart.ApplyOn: {value}",
                function.at("SnapStart"),
                file=function.file,
            )


def _both_kinds(stack: Stack) -> Iterator[Hit]:
    for function in stack.functions():
        mounts = stack.mounts(function)
        kinds = set()
        for mount in mounts:
            s3 = (
                "s3files" in str(mount.get("Arn"))
                or stack.find(mount.get("Arn"), "AWS::S3Files::AccessPoint") is not None
            )
            kinds.add("S3 Files" if s3 else "EFS")
            if not s3 and mount.get("S3FilesConfig") is not None:
                kinds.add("S3 Files")
        if len(kinds) > 1:
            yield Hit(
                function.name,
                "FileSystemConfigs names an EFS access point and S3 Files",
                function.at("FileSystemConfigs"),
                file=function.file,
            )


def _several(stack: Stack) -> Iterator[Hit]:
    for function in stack.functions():
        mounts = stack.mounts(function)
        if len(mounts) > 1:
            yield Hit(
                function.name,
                f"FileSystemConfigs has {len(mounts)} entries",
                function.at("FileSystemConfigs"),
                file=function.file,
            )


def _other_root(stack: Stack) -> Iterator[Hit]:
    for function in stack.functions():
        root = text(function.get("Environment", "Variables", "EFSSTATE_ROOT"))
        paths = [text(mount.get("LocalMountPath")) for mount in stack.mounts(function)]
        if (
            root
            and paths
            and None not in paths
            and not any(f"{root}/".startswith(f"{path}/") for path in paths)
        ):
            evidence = f"EFSSTATE_ROOT is {root}, the mount is {', '.join(map(str, paths))}"
            yield Hit(function.name, evidence, function.at("Environment"), file=function.file)


RULES = (
    Rule(
        "EFS040", "error", "function", "The mount path is not one that Lambda takes",
        "Lambda mounts at /mnt/NAME, one level deep, of letters, digits, `-`, `_` and `.`, and refuses other paths.",
        "Use a path such as /mnt/efs.",
        _mount_path,
    ),
    Rule(
        "EFS041", "warning", "function", "The function's timeout is too short for a first mount",
        "A new environment mounts before your code runs, then imports, then reads what it needs from the file system for the first time. "
        "Under 10 s this fits on a good day; the default of 3 s often does not, and the error says only `Task timed out`.",
        "Set the timeout to 30 s or more. It costs nothing when it is not used.",
        _too_short,
    ),
    Rule(
        "EFS042", "error", "function", "SnapStart does not go with a file system",
        "Lambda refuses SnapStart on a function with EFS.",
        "Take SnapStart out; keep the import small and load on the first call instead.",
        _snap_start,
    ),
    Rule(
        "EFS043", "error", "function", "EFS and S3 Files on one function",
        "A function mounts either an EFS access point or an S3 Files one, and S3FilesConfig belongs to the second alone.",
        "Keep one of them; use a second function for the other.",
        _both_kinds,
    ),
    Rule(
        "EFS044", "error", "function", "More than one file system on a function",
        "FileSystemConfigs takes one entry, an EFS or an S3 Files access point; Lambda refuses more.",
        "Keep one access point; put what the function needs below its directory.",
        _several,
    ),
    Rule(
        "EFS045", "warning", "function", "EFSSTATE_ROOT is not on the mount",
        "What efsstate keeps then lands on the environment's own disk, or nowhere, and is shared with nobody.",
        "Set EFSSTATE_ROOT to the mount path or a folder below it.",
        _other_root,
    ),
)  # fmt: skip
