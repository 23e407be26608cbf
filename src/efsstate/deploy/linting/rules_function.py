"""Rules for the function's own settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from efsstate.deploy.aws_facts import number as number_of
from efsstate.deploy.aws_facts import quote
from efsstate.deploy.findings import Hit, Rule
from efsstate.deploy.linting.stack import Stack
from efsstate.deploy.linting.values import Joined, Unknown, is_known, items, number, text

SHORT = 10  # seconds
MAX_TIMEOUT = int(number_of("timeout"))  # seconds
MAX_TIMEOUT_MANAGED = int(number_of("timeout-managed"))
_MOUNT_PATH = r"/mnt/[a-zA-Z0-9_.-]+"


def _mount_path(stack: Stack) -> Iterator[Hit]:
    for function, mount in stack.mounted():
        path = mount.get("LocalMountPath")
        line = getattr(mount, "lines", {}).get("LocalMountPath") or function.at("FileSystemConfigs")
        if path is None:
            yield Hit(function.name, "no LocalMountPath", line, file=function.file)
        elif not _may_be_mount_path(path):
            yield Hit(function.name, f"LocalMountPath is {path}", line, file=function.file)


def _may_be_mount_path(path: Any) -> bool:
    """Return False if Lambda refuses the path, whatever its unknown pieces will be."""
    if isinstance(path, Joined):
        known = str(path).partition("${")[0]
        return "/mnt/".startswith(known) or re.fullmatch(_MOUNT_PATH, known + "x") is not None
    if not is_known(path):
        return True
    return re.fullmatch(_MOUNT_PATH, path) is not None and len(path) <= 160


def _too_short(stack: Stack) -> Iterator[Hit]:
    for function, _ in stack.mounted():
        seconds = number(function.get("Timeout"))
        if function.get("Timeout") is None:
            yield Hit.on(function, "no Timeout: the default is 3 s")
        elif seconds is not None and 1 <= seconds < SHORT:  # EFS046 reports shorter ones
            yield Hit.on(function, f"Timeout is {seconds:g} s", "Timeout")


def _too_long(stack: Stack) -> Iterator[Hit]:
    for function in stack.functions():
        seconds = number(function.get("Timeout"))
        is_managed = function.get("CapacityProviderConfig") is not None
        limit = MAX_TIMEOUT_MANAGED if is_managed else MAX_TIMEOUT
        if seconds is not None and not 1 <= seconds <= limit:
            yield Hit.on(
                function, f"Timeout is {seconds:g} s; Lambda takes 1 to {limit}", "Timeout"
            )


def _no_group(stack: Stack) -> Iterator[Hit]:
    for function in stack.functions():
        network = function.get("VpcConfig")
        if not isinstance(network, dict) or not stack.mounts(function):
            continue
        groups = network.get("SecurityGroupIds")
        if items(network.get("SubnetIds")) and (groups is None or groups == []):
            yield Hit.on(function, "VpcConfig has subnets and no SecurityGroupIds", "VpcConfig")


def _snap_start(stack: Stack) -> Iterator[Hit]:
    for function in stack.functions():
        value = text(function.get("SnapStart", "ApplyOn"))
        if value and value != "None" and stack.mounts(function):
            yield Hit.on(function, f"SnapStart.ApplyOn: {value}", "SnapStart")


def _both_kinds(stack: Stack) -> Iterator[Hit]:
    for function in stack.functions():
        kinds = set()
        for mount in stack.mounts(function):
            if isinstance(mount.get("Arn"), Unknown) and not stack.is_s3_files(mount):
                continue
            kinds.add("S3 Files" if stack.is_s3_files(mount) else "EFS")
            if isinstance(mount.get("S3FilesConfig"), dict):
                kinds.add("S3 Files")
        if len(kinds) > 1:
            evidence = "FileSystemConfigs names an EFS access point and S3 Files"
            yield Hit.on(function, evidence, "FileSystemConfigs")


def _several(stack: Stack) -> Iterator[Hit]:
    for function in stack.functions():
        mounts = stack.mounts(function)
        if len(mounts) > 1:
            evidence = f"FileSystemConfigs has {len(mounts)} entries"
            yield Hit.on(function, evidence, "FileSystemConfigs")


def _other_root(stack: Stack) -> Iterator[Hit]:
    for function in stack.functions():
        root = text(function.get("Environment", "Variables", "EFSSTATE_ROOT"))
        paths = [text(mount.get("LocalMountPath")) for mount in stack.mounts(function)]
        if not root or not paths or None in paths:
            continue
        if not any(f"{root}/".startswith(f"{path}/") for path in paths):
            evidence = f"EFSSTATE_ROOT is {root}, the mount is {', '.join(map(str, paths))}"
            yield Hit.on(function, evidence, "Environment")


def _repeated_key(stack: Stack) -> Iterator[Hit]:
    file = next((resource.file for resource in stack.resources.values()), "")
    for key, line in stack.duplicates:
        yield Hit(
            key, "it stands twice in one mapping: the last value is the one read", line, "", file
        )


RULES = (
    Rule(
        "EFS040",
        "error",
        "function",
        "The mount path is not one that Lambda takes",
        "Lambda mounts at /mnt/NAME, one level deep, of letters, digits, `-`, `_` and `.`, and "
        "refuses other paths.",
        "Use a path such as /mnt/efs.",
        _mount_path,
    ),
    Rule(
        "EFS041",
        "warning",
        "function",
        "The function's timeout is too short for a first mount",
        "A new environment mounts before your code runs, then imports, then reads what it needs "
        "from the file system for the first time. The default of 3 s is often too short for that, "
        "and the error says only `Task timed out`.",
        "Set the timeout to 30 s or more. It costs nothing if it is not used.",
        _too_short,
    ),
    Rule(
        "EFS042",
        "error",
        "function",
        "SnapStart does not work with a file system",
        "Lambda refuses SnapStart on a function with EFS or S3 Files.",
        "Remove SnapStart; keep the import small and load on the first call instead.",
        _snap_start,
    ),
    Rule(
        "EFS043",
        "error",
        "function",
        "EFS and S3 Files on one function",
        "A function mounts either an EFS access point or an S3 Files one, and S3FilesConfig "
        "belongs to the second alone.",
        "Keep one of them; use a second function for the other.",
        _both_kinds,
    ),
    Rule(
        "EFS044",
        "error",
        "function",
        "More than one file system on a function",
        "FileSystemConfigs takes one entry, an EFS or an S3 Files access point; Lambda refuses "
        "more. SAM joins the list of a function to the one in Globals.",
        "Keep one access point; put what the function needs below its directory.",
        _several,
    ),
    Rule(
        "EFS045",
        "warning",
        "function",
        "EFSSTATE_ROOT is not on the mount",
        "The state of efsstate then lands on the environment's own disk, or nowhere, and is "
        "shared with no other environment.",
        "Set EFSSTATE_ROOT to the mount path or a folder below it.",
        _other_root,
    ),
    Rule(
        "EFS046",
        "error",
        "function",
        "The function's timeout is out of Lambda's range",
        f"Lambda takes 1 to {quote('timeout')}, and up to {quote('timeout-managed')} for "
        "asynchronous calls on Managed Instances. Documents and schemas from before November 2026 "
        "say 900 s, and not 1,800 s.",
        "Set a timeout in that range; split longer work with a checkpoint.",
        _too_long,
    ),
    Rule(
        "EFS047",
        "error",
        "function",
        "The function has subnets and no security group",
        "Lambda takes subnets and security groups only together, and refuses the configuration.",
        "Add a security group to VpcConfig.SecurityGroupIds.",
        _no_group,
    ),
    Rule(
        "EFS060",
        "warning",
        "template",
        "A key stands twice in the template",
        "YAML and JSON parsers keep the last value without a word, so a part of the template is "
        "not deployed.",
        "Remove one of the two, or join their values.",
        _repeated_key,
    ),
)
