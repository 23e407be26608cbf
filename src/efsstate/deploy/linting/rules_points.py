"""Rules for access points: their directory, its owner, and the user they enforce."""

from __future__ import annotations

import re
from collections.abc import Iterator

from efsstate.deploy.findings import Hit, Rule
from efsstate.deploy.linting.resource import Resource
from efsstate.deploy.linting.stack import Stack
from efsstate.deploy.linting.values import (
    Joined,
    Ref,
    Unknown,
    is_known,
    items,
    number,
    text,
)

_MODE = re.compile(r"[0-7]{3,4}")
_PATH = re.compile(r"/|(/(?!\.)[^$#<>;`|&?{}^*/\n]+){1,4}")
MAX_PATH = 100


def _no_access_point(stack: Stack) -> Iterator[Hit]:
    for function, mount in stack.mounted():
        evidence = _not_an_access_point(stack, mount.get("Arn"))
        if evidence and not stack.is_s3_files(mount):
            line = getattr(mount, "line", 0) or function.at("FileSystemConfigs")
            yield Hit(function.name, evidence, line, file=function.file)


_LARGEST_ID = 2**32 - 1  # of a user or a group, as the API has it
_NUMBERS = (
    ("PosixUser", "Uid"),
    ("PosixUser", "Gid"),
    ("PosixUser", "SecondaryGids"),
    ("RootDirectory", "CreationInfo", "OwnerUid"),
    ("RootDirectory", "CreationInfo", "OwnerGid"),
)


def _not_an_access_point(stack: Stack, value: object) -> str:
    """Return why a mount's Arn is not the ARN of an access point, or "" if it may be one."""
    literal = text(value)
    if isinstance(value, Unknown) and value.strip().startswith("aws_efs_file_system."):
        return f"Arn is {value.strip()}"
    file_system = stack.find(value, "AWS::EFS::FileSystem")
    if file_system is not None and ":access-point/" not in str(value):
        return f"Arn leads to the file system {file_system.name}"
    access_point = stack.find(value, "AWS::EFS::AccessPoint")
    if access_point is not None and isinstance(value, Ref) and value.attribute != "Arn":
        what = value.attribute or "id"
        return f"Arn is the {what} of {access_point.name}, not its ARN"
    if access_point is None and literal is not None:
        is_arn = re.search(r":access-point/fsap-[0-9a-f]+$", literal)
        return "" if is_arn else f"Arn is {literal or 'empty'}"
    return ""


def _at_the_root(stack: Stack) -> Iterator[Hit]:
    for point in stack.of("AWS::EFS::AccessPoint"):
        path = point.get("RootDirectory", "Path")
        if _is_root(point):
            missing = "no RootDirectory.Path: the root of the file system"
            yield Hit.on(point, "RootDirectory is /" if path else missing, "RootDirectory")


def _is_root(point: Resource) -> bool:
    """Return True if an access point's directory is certainly the root of the file system."""
    root, path = point.get("RootDirectory"), point.get("RootDirectory", "Path")
    if isinstance(root, Unknown) or isinstance(path, Unknown | Joined | Ref):
        return False
    return path is None or text(path) == "/"


def _open_to_all(stack: Stack) -> Iterator[Hit]:
    for point in stack.of("AWS::EFS::AccessPoint"):
        mode = text(point.get("RootDirectory", "CreationInfo", "Permissions"))
        if mode and _MODE.fullmatch(mode) and int(mode[-1]) & 2 and not _is_root(point):
            evidence = f"Permissions {mode}: every user of the file system may write there"
            yield Hit.on(point, evidence, "RootDirectory")


def _no_user(stack: Stack) -> Iterator[Hit]:
    for point in stack.of("AWS::EFS::AccessPoint"):
        user = point.get("PosixUser")
        if user is None:
            yield Hit.on(point, "no PosixUser: the client's own user id applies")
        elif isinstance(user, dict) and text(user.get("Uid")) == "0":
            yield Hit.on(point, "PosixUser.Uid is 0", "PosixUser")


def _not_created(stack: Stack) -> Iterator[Hit]:
    for point in stack.of("AWS::EFS::AccessPoint"):
        path = text(point.get("RootDirectory", "Path"))
        if path and path != "/" and point.get("RootDirectory", "CreationInfo") is None:
            # On a file system that is older than the stack the directory may exist already.
            severity = "" if stack.file_system(point) and stack.form != "account" else "warning"
            evidence = f"RootDirectory {path} without CreationInfo"
            yield Hit.on(point, evidence, "RootDirectory", severity)


def _not_writable(stack: Stack) -> Iterator[Hit]:
    for point in stack.of("AWS::EFS::AccessPoint"):
        evidence = _of_another_owner(point) or _of_root(stack, point)
        if evidence:
            # On a file system that is older than the stack the directory may exist already.
            severity = "" if stack.file_system(point) is not None else "warning"
            yield Hit.on(point, evidence, "RootDirectory", severity)


def _of_another_owner(point: Resource) -> str:
    """Return why the user cannot write to the directory that CreationInfo creates, or ""."""
    info = point.get("RootDirectory", "CreationInfo")
    mode = text(point.get("RootDirectory", "CreationInfo", "Permissions"))
    user = text(point.get("PosixUser", "Uid"))
    more = items(point.get("PosixUser", "SecondaryGids"))
    groups = [text(group) for group in [point.get("PosixUser", "Gid"), *more]]
    if not isinstance(info, dict) or not mode or not _MODE.fullmatch(mode) or _is_root(point):
        return ""
    owner, owners = text(info.get("OwnerUid")), text(info.get("OwnerGid"))
    if None in (user, *groups, owner, owners) or user == "0":
        return ""
    digits = mode[-3:]
    digit = int(digits[0] if user == owner else digits[1] if owners in groups else digits[2])
    if digit & 3 == 3:
        return ""
    names = ",".join(map(str, groups))
    who = f"user {user}:{names} gets {digit} of {mode} on a directory of {owner}:{owners}"
    return f"{who}: it cannot write there"


def _of_root(stack: Stack, point: Resource) -> str:
    """Return why the user cannot write to the root of a new file system, or ""."""
    file_system = stack.file_system(point)
    uid = number(point.get("PosixUser", "Uid"))
    if not _is_root(point) or not uid or file_system is None or stack.form == "account":
        return ""
    for other in stack.of("AWS::EFS::AccessPoint"):
        is_same = stack.file_system(other) is file_system
        if other is not point and is_same and number(other.get("PosixUser", "Uid")) in (None, 0):
            return ""  # through this one root may have changed the owner
    who = f"user {uid:.0f} cannot write there"
    return f"/ of the new file system {file_system.name} belongs to root 0755; {who}"


def _refused_values(stack: Stack) -> Iterator[Hit]:
    for point in stack.of("AWS::EFS::AccessPoint"):
        path = point.get("RootDirectory", "Path")
        if is_known(path) and (not _PATH.fullmatch(path) or len(path) > MAX_PATH):
            yield Hit.on(point, f"RootDirectory.Path is {path}", "RootDirectory")
        mode = point.get("RootDirectory", "CreationInfo", "Permissions")
        if is_known(mode) and not _MODE.fullmatch(mode):
            is_octal = mode.isdecimal() and len(mode) <= 4
            hint = f" (0{int(mode):o} without quotes is a number in YAML)" if is_octal else ""
            yield Hit.on(point, f"Permissions is {mode[:20]}{hint}", "RootDirectory")
        for path in _NUMBERS:
            for value in items(point.get(*path)):
                if is_known(value) and not _is_posix_id(value):
                    evidence = f"{path[-1]} is {value[:20]}: a number from 0 to {_LARGEST_ID:,}"
                    yield Hit.on(point, evidence, path[0])


def _is_posix_id(text: str) -> bool:
    return text.isdecimal() and len(text) <= 10 and int(text) <= _LARGEST_ID


RULES = (
    Rule(
        "EFS024",
        "error",
        "access point",
        "The function's file system is not an access point",
        "FileSystemConfigs takes the ARN of an access point, "
        "arn:aws:elasticfilesystem:REGION:ACCOUNT:access-point/fsap-…, and Lambda refuses "
        "anything else. `Ref` of an access point (Terraform: `.id`) is its id, not its ARN.",
        "Create an access point, and give its ARN: `!GetAtt NAME.Arn` (Terraform: `.arn`).",
        _no_access_point,
    ),
    Rule(
        "EFS025",
        "warning",
        "access point",
        "The access point's directory is the root of the file system",
        "Its clients then see, and may fill or delete, the files of every other application. And "
        "CreationInfo has no effect on `/`, which belongs to root: another user cannot write to "
        "it.",
        "Give the access point a directory of its own, RootDirectory.Path: /name, with "
        "CreationInfo.",
        _at_the_root,
    ),
    Rule(
        "EFS026",
        "warning",
        "access point",
        "The access point's directory is writable by everyone",
        "0777 appears in many examples as a cure for `Permission denied`. It lets every user of "
        "the file system replace cached results and models.",
        "Use 0750 with OwnerUid and OwnerGid equal to PosixUser's.",
        _open_to_all,
    ),
    Rule(
        "EFS027",
        "warning",
        "access point",
        "The access point has no user of its own, or root",
        "Without PosixUser the client's own user id applies, which for a Lambda function is "
        "nothing to rely on; with user 0 no permission restricts the client.",
        "Set PosixUser to a number above 0, the same as CreationInfo's owner.",
        _no_user,
    ),
    Rule(
        "EFS028",
        "error",
        "access point",
        "The access point's directory is not created if it is missing",
        "EFS creates the directory at the first mount only if there is CreationInfo. Without it, "
        "and without the directory, the mount ends with EFSMountFailureException. On a file "
        "system that exists already the directory may be there.",
        "Add CreationInfo with OwnerUid, OwnerGid and Permissions.",
        _not_created,
    ),
    Rule(
        "EFS029",
        "error",
        "access point",
        "The access point's user cannot write to its directory",
        "The mount succeeds, and the first write ends with `PermissionError: [Errno 13]`. "
        "CreationInfo applies only when the directory is created: to change it later, change the "
        "directory, or use a new path. The root of a new file system belongs to root.",
        "Use a directory below `/` whose OwnerUid and OwnerGid are PosixUser's, with Permissions "
        '"0750".',
        _not_writable,
    ),
    Rule(
        "EFS034",
        "error",
        "access point",
        "The access point has a path or permissions that EFS refuses",
        "The path begins with `/` and has up to four levels and 100 characters; the permissions "
        "are three or four octal digits. YAML reads 0750 without quotes as an octal number, so "
        "that CloudFormation gets 488. Users and groups are numbers from 0 to 4294967295.",
        'Write a path such as /name, quote the permissions: "0750", and give users by number.',
        _refused_values,
    ),
)
