"""Writes the infrastructure templates: the variants of one CloudFormation source, and one for Terraform."""

from __future__ import annotations

import os
import re

FORMATS = ("sam", "cloudformation", "terraform")

# name, handler, timeout, role, alarm, description: what runs beside the user's own two functions comes with the package.
_FUNCTIONS = (
    ("Service", "!Ref ServiceHandler", "!Ref ServiceTimeout", "FunctionRole", "Answers requests"),
    (
        "Batch",
        "!Ref BatchHandler",
        "900",
        "FunctionRole",
        "Works through a batch from its checkpoint",
    ),
    (
        "Janitor",
        "efsstate.janitor.handler",
        "900",
        "FunctionRole",
        "Removes what is expired or unused",
    ),
    ("Ops", "efsstate.ops.handler", "300", "FunctionRole", "Runs efsstate's commands on the mount"),
    (
        "Doctor",
        "efsstate.deploy.diagnosis.doctor.handler",
        "120",
        "FunctionRole",
        "Looks at the mount from inside",
    ),
    (
        "Publisher",
        "efsstate.publisher.handler",
        "900",
        "PublisherRole",
        "Copies models from S3 to the mount",
    ),
)
_ALARMS = ("Service", "Batch", "Janitor")
_TAG = re.compile(r"\s+#: ([a-z ]+)$")


def render(
    form: str, *, image: bool = False, layer: str | None = None, code: str | None = None
) -> str:
    """The text of a template. `form`: one of FORMATS; `image`: functions from a container image, not a zip.

    `layer`: the path of the efsstate layer's zip, to deploy it with the stack; `code`: the folder (or for Terraform the zip)
    of the functions' code, by default `.` (code.zip). ValueError for an unknown form, and for a layer on an image, which Lambda does not take.
    """
    if form not in FORMATS:
        raise ValueError(f"{form}: not a format of template: it is one of {', '.join(FORMATS)}")
    if image and layer:
        raise ValueError(
            "a function from a container image takes no layer: install efsstate in the image instead"
        )
    words = {form, "image" if image else "zip", "layer" if layer else "nolayer"}
    if image:
        words.discard("nolayer")
    values = {"code": code or ("code.zip" if form == "terraform" else "."), "layer": layer or ""}
    if form == "terraform":
        return _fill(_choose(_read("main.tf"), words), values)
    functions, alarms = "", ""
    if layer:
        functions += _choose(_read("layer.yaml"), words)
    for name, handler, timeout, role, description in _FUNCTIONS:
        one = {
            **values,
            "Name": name,
            "name": name.lower(),
            "handler": handler,
            "timeout": timeout,
            "role": role,
            "description": description,
        }
        functions += _fill(_choose(_read("function.yaml"), words | {name.lower()}), one)
        if name in _ALARMS:
            alarms += _fill(_read("alarm.yaml"), one)
    text = _choose(_read("stack.yaml"), words)
    return _fill(text.replace("@functions@\n", functions).replace("@alarms@\n", alarms), values)


def _read(name: str) -> str:
    with open(os.path.join(os.path.dirname(__file__), "templates", name), encoding="utf-8") as file:
        return file.read()


def _choose(text: str, words: set[str]) -> str:
    """The lines whose marks are all among `words`: `#: word` ends a line, `#{ word` and `#}` stand around several."""
    kept: list[str] = []
    inside: list[bool] = []
    for line in text.splitlines():
        mark = line.strip()
        if mark.startswith("#{ "):
            inside.append(set(mark[3:].split()) <= words)
        elif mark == "#}":
            inside.pop()
        elif all(inside):
            tag = _TAG.search(line)
            if tag is None:
                kept.append(line)
            elif set(tag[1].split()) <= words:
                kept.append(line[: tag.start()])
    return "\n".join(kept) + "\n"


def _fill(text: str, values: dict[str, str]) -> str:
    return re.sub(r"@([A-Za-z]+)@", lambda match: values.get(match[1], match[0]), text)
