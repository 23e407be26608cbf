"""The infrastructure templates: variants of one CloudFormation source, and one for Terraform."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

FORMATS = ("sam", "cloudformation", "terraform")


class _Function(NamedTuple):
    """A function of the stack; those that are not the user's own come with the package."""

    name: str
    handler: str
    timeout: str
    memory: str
    description: str
    words: tuple[str, ...] = ()
    """The marks of the source that apply to it, beside its own name."""


_FUNCTIONS = (
    _Function(
        "Service",
        "!Ref ServiceHandler",
        "!Ref ServiceTimeout",
        "!Ref MemorySize",
        "Answers requests",
        ("own",),
    ),
    _Function(
        "Batch",
        "!Ref BatchHandler",
        "900",
        "!Ref MemorySize",
        "Works through a batch from its checkpoint",
        ("optional", "own"),
    ),
    _Function(
        "Janitor",
        "efsstate.janitor.handler",
        "900",
        "512",
        "Removes expired and unused entries",
    ),
    _Function(
        "Ops",
        "efsstate.ops.handler",
        "300",
        "512",
        "Runs efsstate's commands on the mount",
    ),
    _Function(
        "Doctor",
        "efsstate.deploy.diagnosis.doctor.handler",
        "120",
        "1769",
        "Examines the mount from inside",
    ),
    _Function(
        "Publisher",
        "efsstate.publisher.handler",
        "900",
        "1769",
        "Copies models from S3 to the mount",
        ("optional",),
    ),
)
_ALARMS = ("Service", "Batch", "Janitor", "Publisher")
_FILE_SYSTEM = "!If [NewFileSystem, !Ref FileSystem, !Ref ExistingFileSystemId]"
_MOST_WORKERS = 1000  # numbers that the state machine's States.ArrayRange may return
# The state machine's placeholders, by the language that surrounds it.
_INTERPOLATED = {
    "cloudformation": {
        "Partition": "${AWS::Partition}",
        "Function": "${Batch.Arn}",
        "Workers": "${Workers}",
    },
    "terraform": {
        "Partition": "${data.aws_partition.here.partition}",
        "Function": '${aws_lambda_function.this["batch"].arn}',
        "Workers": "${var.workers}",
    },
}
_WORK = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_ROUNDS, _PAUSE = "10", "60"  # calls of all workers before the machine gives up, seconds between
_TAG = re.compile(r"\s+#: ([a-z ]+)$")


def render(
    form: str,
    *,
    image: bool = False,
    layer: str | None = None,
    code: str | None = None,
    workers: int | None = None,
    containers: str | None = None,
) -> str:
    """Return the text of a template in one of FORMATS.

    `image`: the functions come from a container image, not a zip.
    `layer`: the path of the efsstate layer's zip, to deploy it with the stack.
    `code`: the folder of the functions' code (default `.`), or for Terraform the zip (code.zip).
    `workers`: add a state machine that runs the batch by so many workers, 1 to 1,000.
    `containers`: add a Batch job and an ECS task that run this module:function in a container.

    Raise ValueError for an unknown format, for a layer on an image, which Lambda refuses, for
    another number of workers, and for another form of `containers`.
    """
    if form not in FORMATS:
        raise ValueError(f"{form}: not a format of template; it is one of {', '.join(FORMATS)}")
    if image and layer:
        raise ValueError("a container image takes no layer; install efsstate in the image instead")
    if workers is not None and not 1 <= workers <= _MOST_WORKERS:
        raise ValueError(f"workers: {workers} is not a number from 1 to {_MOST_WORKERS:,}")
    if containers is not None and not _WORK.fullmatch(containers):
        raise ValueError(f"containers: {containers!r} is not module:function, as batch:read is")
    words = {form, "image" if image else "zip", "layer" if layer else "nolayer"}
    if image:
        words.discard("nolayer")
    if workers is not None:
        words.add("workers")
    if containers is not None:
        words.add("containers")
    values = {
        "code": code or ("code.zip" if form == "terraform" else "."),
        "layer": layer or "",
        "fs": _FILE_SYSTEM,
        "workers": str(workers),
        "work": containers or "",
    }
    suffix = "tf" if form == "terraform" else "yaml"
    more = "" if containers is None else _choose(_read(f"containers.{suffix}"), words)
    machines = "" if workers is None else _machine(form, words)
    if form == "terraform":
        text = _choose(_read("main.tf"), words).replace("@machines@\n", machines)
        return _fill(text.replace("@containers@\n", more), values)
    functions, alarms = "", ""
    if layer:
        functions += _choose(_read("layer.yaml"), words)
    for function in _FUNCTIONS:
        own = {
            **values,
            "Name": function.name,
            "name": function.name.lower(),
            "handler": function.handler,
            "timeout": function.timeout,
            "memory": function.memory,
            "description": function.description,
        }
        marks = words | {function.name.lower(), *function.words}
        functions += _fill(_choose(_read("function.yaml"), marks), own)
        if function.name in _ALARMS:
            alarms += _fill(_choose(_read("alarm.yaml"), marks), own)
    text = _choose(_read("stack.yaml"), words).replace("@machines@\n", machines)
    text = text.replace("@containers@\n", more)
    return _fill(text.replace("@functions@\n", functions).replace("@alarms@\n", alarms), values)


def _machine(form: str, words: set[str]) -> str:
    """Return the resources of the workers' state machine, which has one source for all formats."""
    is_terraform = form == "terraform"
    text = _choose(_read("workers.tf" if is_terraform else "workers.yaml"), words)
    place = re.search(r"^( +)@definition@$", text, re.MULTILINE)
    assert place is not None
    language = _INTERPOLATED["terraform" if is_terraform else "cloudformation"]
    body = definition(**language).rstrip("\n").replace("\n", f"\n{place[1]}")
    return text.replace("@definition@", body)


def definition(**values: str) -> str:
    """Return the workers' state machine in Amazon States Language.

    values: the text for `Function` (an ARN), `Partition` and `Workers`.
    """
    values = {"Rounds": _ROUNDS, "Pause": _PAUSE, **values}
    text = _read("workers.asl.json")
    retries = _read("retries.asl.json").rstrip("\n")
    text = re.sub(
        r"^( *)(.*)@Retry@",
        lambda match: match[1] + match[2] + retries.replace("\n", f"\n{match[1]}"),
        text,
        flags=re.MULTILINE,
    )
    return _fill(text, values)


def _read(name: str) -> str:
    with open(os.path.join(os.path.dirname(__file__), "templates", name), encoding="utf-8") as file:
        return file.read()


def _choose(text: str, words: set[str]) -> str:
    """Return those lines of a source that have no mark outside of `words`.

    `#: word` at its end marks a line; `#{ word` and `#}` enclose several.
    """
    kept: list[str] = []
    enclosing: list[bool] = []
    for line in text.splitlines():
        mark = line.strip()
        if mark.startswith("#{ "):
            enclosing.append(set(mark[3:].split()) <= words)
        elif mark == "#}":
            enclosing.pop()
        elif all(enclosing):
            tag = _TAG.search(line)
            if tag is None:
                kept.append(line)
            elif set(tag[1].split()) <= words:
                kept.append(line[: tag.start()])
    return "\n".join(kept) + "\n"


def _fill(text: str, values: dict[str, str]) -> str:
    return re.sub(r"@([A-Za-z]+)@", lambda match: values.get(match[1], match[0]), text)
