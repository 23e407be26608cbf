"""Terraform and OpenTofu modules, read into a Stack: local child modules and tfvars included."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import hcl2

from efsstate.deploy.linting.hcl_blocks import Body
from efsstate.deploy.linting.hcl_expressions import Scope
from efsstate.deploy.linting.hcl_mentions import has_undeclared, mentions
from efsstate.deploy.linting.hcl_text import drop_prose, quoted, tidy_heredocs
from efsstate.deploy.linting.located_yaml import load
from efsstate.deploy.linting.resource import Resource
from efsstate.deploy.linting.stack import Stack
from efsstate.deploy.linting.terraform_types import attach_policies, convert, document
from efsstate.deploy.linting.values import Ref, Unknown, is_known, items, number
from efsstate.errors import TemplateError

ENDINGS = (".tf", ".tf.json", ".tofu", ".tofu.json")
MAX_BYTES = 1 << 20  # a file; the parser takes some 3 s for it
MAX_MODULES = 50
_MAX_INSTANCES = 50  # of one block that are looked at
# Nothing refers to these by name, so that each instance of a for_each is a resource of its own.
_UNNAMED = (
    "aws_iam_role_policy_attachment",
    "aws_security_group_rule",
    "aws_vpc_security_group_egress_rule",
    "aws_vpc_security_group_ingress_rule",
)
_NOT = "not "
_SWITCH = re.compile(r"\$\{(?P<not>!?)(?P<test>[\w.]+) \? (?P<yes>\d+) : (?P<no>\d+)\}")
_SOURCE = re.compile(r'^\s*source\s*=\s*"(\.\.?/[^"]*)"', re.MULTILINE)


class _Written(NamedTuple):
    """A resource block as it is written."""

    scope: Scope
    kind: str
    name: str
    raw: dict[str, Any]
    file: str
    lines: list[str]
    is_many: bool
    """True if its module is called with count or for_each."""
    condition: str = ""
    """The conditions of its module's calls."""


def files_in(folder: str) -> list[str]:
    """Return the Terraform files of a folder; a .tofu file replaces the .tf file of its name."""
    names = [path for end in ENDINGS for path in glob.glob(f"{glob.escape(folder)}/*{end}")]
    replaced = {path.replace(".tofu", ".tf") for path in names if ".tofu" in path}
    return sorted(path for path in names if path not in replaced)


def read(path: str, parameters: Mapping[str, str] | None = None) -> Stack:
    """Return the stack of a Terraform file, or of a folder of them (a module).

    `parameters` are values of its variables, which win over tfvars and defaults.
    """
    is_folder = os.path.isdir(path)
    folder = path if is_folder else os.path.dirname(path)
    reader = _Reader()
    scope = Scope(os.path.abspath(folder))
    files = files_in(path) if is_folder else [path]
    if is_folder:
        scope.arguments.update(_tfvars(folder))
    if parameters:
        scope.arguments.update({key: _argument(value) for key, value in parameters.items()})
    if is_folder and not scope.arguments and (_has_caller(folder) or reader.is_reusable(files)):
        scope.has_unknown_caller = True
        reader.unseen.append("the caller of this module, which decides its variables")
    reader.read_module(scope, files, is_many=False)
    if not (reader.blocks or reader.unseen or reader.skipped):
        raise TemplateError(f"{path}: no Terraform resources in it")
    stack = reader.stack()
    if is_folder:  # one file of several may use variables that another declares
        stack.parameters = set(scope.declared)
    return stack


class _Reader:
    """The module that is checked, with those that it calls."""

    def __init__(self) -> None:
        self.blocks: list[_Written] = []
        self.unseen: list[str] = []
        self.skipped: list[str] = []  # modules that are not created with these variables
        self.modules = 0
        self._files: dict[str, tuple[dict[str, Any], list[str]]] = {}

    def stack(self) -> Stack:
        for block in self.blocks:
            # One file of several: something missing in it may stand in another.
            if has_undeclared(block.scope, block.raw):
                self.unseen.append("names declared in other files")
        resources, skipped = [], list(self.skipped)
        for block in self.blocks:
            converted = _convert(block)
            resources += converted
            if not converted:
                skipped.append(f"{block.scope.prefix}{block.kind}.{block.name}")
        stack = Stack(
            resources,
            unseen=self.unseen,
            skipped=skipped,
            form="terraform",
            implies=_implies,
            may_coexist=_may_coexist,
        )
        attach_policies(stack)
        return stack

    def is_reusable(self, files: list[str]) -> bool:
        """Return True if another project calls these files: they ask for values and return some.

        A module with a provider or a backend is taken for a root module, which no other calls.
        """
        trees = [self._parse_file(file)[0] for file in files]
        if any("provider" in tree for tree in trees):
            return False
        for tree in trees:
            if any({"backend", "cloud"} & set(block) for block in items(tree.get("terraform"))):
                return False
        variables = [
            body
            for tree in trees
            for block in items(tree.get("variable"))
            for _, body in _named(block)
        ]
        asks = any("default" not in body for body in variables)
        return asks and any("output" in tree for tree in trees)

    def read_module(
        self, scope: Scope, files: list[str], *, is_many: bool, condition: str = ""
    ) -> None:
        scope.read_document = lambda body: document(scope, body)
        calls: list[tuple[str, dict[str, Any]]] = []
        for file in files:
            tree, lines = self._parse_file(file)
            self._declare(scope, tree)
            calls += [call for block in items(tree.get("module")) for call in _named(block)]
            for kind, name, body in _typed(tree.get("resource")):
                scope.resources.add(f"{kind}.{name}")
                block = _Written(scope, kind, name, body, file, lines, is_many, condition)
                self.blocks.append(block)
        for name, body in calls:
            self._call(scope, name, body, is_many=is_many, condition=condition)

    def _parse_file(self, file: str) -> tuple[dict[str, Any], list[str]]:
        """Return a file's tree and its lines; a module that is called often is parsed once."""
        if file not in self._files:
            text = load(file, MAX_BYTES)
            self._files[file] = parse(text, file), text.splitlines()
        return self._files[file]

    def _declare(self, scope: Scope, tree: dict[str, Any]) -> None:
        for block in items(tree.get("variable")):
            for name, body in _named(block):
                scope.declared.add(name)
                if "default" in body:
                    scope.defaults[name] = body["default"]
                if scope.value(body.get("nullable")) == "false":
                    scope.not_nullable.add(name)
        for block in items(tree.get("locals")):
            pairs = block.items() if isinstance(block, dict) else ()
            scope.locals.update({key: value for key, value in pairs if not key.startswith("__")})
        for block in items(tree.get("output")):
            scope.outputs.update({name: body.get("value") for name, body in _named(block)})
        for kind, name, body in _typed(tree.get("data")):
            scope.data[f"{kind}.{name}"] = body

    def _call(
        self, scope: Scope, name: str, body: dict[str, Any], *, is_many: bool, condition: str
    ) -> None:
        """Follow the call of a local module; note a module from elsewhere."""
        source = scope.value(body.get("source"))
        count = scope.value(body["count"]) if "count" in body else None
        each = scope.value(body.get("for_each"))
        if number(count) == 0 or (isinstance(each, list | dict) and not each):
            self.skipped.append(f"{scope.prefix}module.{name}")
            return
        folder = os.path.normpath(os.path.join(scope.folder, str(source)))
        files = files_in(folder) if str(source).startswith(("./", "../")) else []
        if not files:
            self.unseen.append(f"module {scope.prefix}{name} ({source})")
            return
        self.modules += 1
        if self.modules > MAX_MODULES:
            raise TemplateError(f"{folder}: over {MAX_MODULES} modules, or one that calls itself")
        child = Scope(folder, f"{scope.prefix}module.{name}.", scope)
        child.arguments = {
            key: value
            for key, value in body.items()
            if not key.startswith("__") and key not in ("source", "version", "providers")
        }
        child.depends = scope.depends | mentions(scope, body.get("depends_on"))
        scope.modules[name] = child
        several = is_many or "for_each" in body or (count is not None and number(count) != 1)
        both = _condition(scope, body, condition)
        self.read_module(child, files, is_many=several, condition=both)


# ---- files ----


def parse(text: str, path: str) -> dict[str, Any]:
    """Return the tree of a Terraform file. Raise TemplateError if it cannot be parsed."""
    try:
        if path.endswith(".json"):
            tree = json.loads(text)
            if not isinstance(tree, dict):
                return {}
            return {key: quoted(value) for key, value in tree.items()}
        return dict(hcl2.loads(tidy_heredocs(drop_prose(text))))
    except json.JSONDecodeError as error:
        raise TemplateError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise TemplateError(f"{path}: nested too deeply") from error
    except Exception as error:  # the parser raises errors of several families
        line = getattr(error, "line", None)
        where = f"{path}:{line}" if isinstance(line, int) and line > 0 else path
        reason = str(error).splitlines()[0][:200]
        message = f"the HCL parser cannot read it: {reason}"
        hint = "check the output of `terraform show -json PLAN` instead"
        raise TemplateError(f"{where}: {message}; {hint}") from error


def _tfvars(folder: str) -> dict[str, Any]:
    """Return the variables that Terraform reads by itself, the later file winning."""
    names = ["terraform.tfvars", "terraform.tfvars.json"]
    paths = [os.path.join(folder, name) for name in names]
    for end in ("*.auto.tfvars", "*.auto.tfvars.json"):
        paths += sorted(glob.glob(os.path.join(glob.escape(folder), end)))
    values: dict[str, Any] = {}
    for path in paths:
        if os.path.isfile(path):
            tree = parse(load(path, MAX_BYTES), path)
            values.update({key: part for key, part in tree.items() if not key.startswith("__")})
    return values


def _argument(value: str) -> Any:
    """Return a variable's value from the command line as the parser would give it."""
    return "${" + value + "}" if value[:1] in "[{" else quoted(value)


def _has_caller(folder: str) -> bool:
    """Return True if a module in a folder above calls this one: it decides the variables."""
    here = os.path.realpath(folder)
    above = here
    for _ in range(3):
        above = os.path.dirname(above)
        for path in files_in(above)[:50]:
            try:
                text = load(path, MAX_BYTES)
            except TemplateError:
                continue
            if any(
                os.path.realpath(os.path.join(above, source)) == here
                for source in _SOURCE.findall(text)
            ):
                return True
    return False


# ---- blocks ----


def _named(block: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, body in block.items() if isinstance(block, dict) else ():
        first = body[0] if isinstance(body, list) and body else body
        if isinstance(first, dict):
            yield name.strip('"'), first


def _typed(blocks: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for block in items(blocks):
        for kind, inner in _named(block):
            for name, body in _named(inner):
                yield kind, name, body


def _convert(block: _Written) -> list[Resource]:
    """Return the resource of a block; nothing if its count or for_each creates none."""
    scope, raw = block.scope, block.raw
    count = scope.value(raw["count"]) if "count" in raw else None
    if number(count) == 0:
        return []
    each = scope.value(raw.get("for_each"))
    if isinstance(each, list | dict) and not each:
        return []
    if block.kind in _UNNAMED:
        instances = list(_instances(each))
        if instances:
            return [_one(block, *instance) for instance in instances]
    return [_one(block, None, each if isinstance(each, Ref) else None)]


def _condition(scope: Scope, raw: dict[str, Any], outer: str) -> str:
    """Return the undecided conditions under which a block is created, one a line.

    Only `X ? A : B` counts as one: a number or a list that is not known is hardly ever empty.
    """
    written = raw.get("count", raw.get("for_each"))
    if " ? " not in str(written) or not isinstance(scope.value(written), Unknown):
        return outer
    own = f"{scope.prefix}{written}"
    switch = _SWITCH.fullmatch(str(written))
    if switch and "0" in switch.group("yes", "no"):
        is_no = (switch["yes"] == "0") != bool(switch["not"])
        own = f"{_NOT if is_no else ''}{scope.prefix}{switch['test']}"
    return f"{outer}\n{own}" if outer else own


def _implies(one: str, other: str) -> bool:
    return set(other.split("\n")) <= set(one.split("\n"))


def _may_coexist(one: str, other: str) -> bool:
    ours, theirs = one.split("\n"), other.split("\n")
    return not any(
        f"{_NOT}{mine}" in theirs or mine.removeprefix(_NOT) in theirs
        for mine in ours
        if mine not in theirs
    )


def _instances(each: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the key and the value of each instance that for_each creates, if they are known."""
    pairs = each.items() if isinstance(each, dict) else [(value, value) for value in items(each)]
    if not isinstance(each, dict | list) or not all(is_known(key) for key, _ in pairs):
        return
    yield from list(pairs)[:_MAX_INSTANCES]


def _one(block: _Written, key: Any, each: Any) -> Resource:
    """Return a resource of a block, for one key of its for_each or for all of them."""
    scope, raw = block.scope, block.raw
    scope.each_key, scope.each = key, each
    own = f"{scope.prefix}{block.kind}.{block.name}"
    name = own if key is None else f'{own}["{key}"]'
    span = _span(block.lines, block.kind, block.name)
    body = Body(scope, {**raw, "__name__": own}, block.lines, *span)
    resource = convert(block.kind, name, body, block.file)
    resource.depends = (mentions(scope, raw) | scope.depends) - {own}
    count = scope.value(raw["count"]) if "count" in raw else None
    is_single = key is not None or ("for_each" not in raw and (count is None or number(count) == 1))
    resource.is_many = block.is_many or not is_single
    resource.condition = _condition(scope, raw, block.condition)
    scope.each_key = scope.each = None
    return resource


def _span(lines: list[str], kind: str, name: str) -> tuple[int, int]:
    """Return the first and last line of a resource as it is usually written, else (0, 0)."""
    head = re.compile(rf'\s*(resource\s+)?"{re.escape(kind)}"\s+"{re.escape(name)}"\s*{{')
    start = next((number for number, line in enumerate(lines, 1) if head.match(line)), 0)
    if not start:
        return 0, 0
    later = range(start + 1, len(lines) + 1)
    end = next((number for number in later if re.match(r"\w", lines[number - 1])), len(lines) + 1)
    return start, end - 1
