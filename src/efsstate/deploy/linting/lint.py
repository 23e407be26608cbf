"""The linter: finds the language of a template, reads it into stacks, and runs the rules."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from efsstate.deploy.findings import Finding, run, sort_key
from efsstate.deploy.linting import cloudformation, plan, serverless, terraform
from efsstate.deploy.linting.located_yaml import Map, load, parse
from efsstate.deploy.linting.silence import is_silenced
from efsstate.deploy.linting.stack import Stack
from efsstate.deploy.rules import RULES
from efsstate.errors import TemplateError

_FOLDER = "name a template, or a folder with .tf files, a serverless.yml or *.template.json"
_MAX_TEMPLATES = 200  # in one folder


class Report(NamedTuple):
    """The findings in a template, and how much of it could be looked at."""

    findings: list[Finding]
    functions: int
    """Functions with a file system that were looked at."""
    unseen: list[str]
    """The modules, macros and nested stacks that create resources out of view."""
    silenced: int
    """Findings that a comment or `ignore` keeps quiet."""
    skipped: int = 0
    """Resources that are not created with the parameters at hand."""
    parameters: Collection[str] | None = None
    """The names of all parameters; None if they are not known."""


def check(
    path: str, parameters: Mapping[str, str] | None = None, ignore: Collection[str] = ()
) -> Report:
    """Check a template, a Terraform plan, or a folder.

    `parameters` replace the defaults of the template's parameters or variables; `ignore` are codes
    to leave out. Raise TemplateError, of one line, if the path cannot be checked.
    """
    findings: dict[Finding, None] = {}
    names: set[str] | None = set()
    functions, silenced, skipped, unseen = 0, 0, 0, dict[str, None]()
    lines: dict[str, list[str]] = {}
    for stack in read_all(path, parameters):
        functions += len({function.name for function, _ in stack.mounted()})
        skipped += len(stack.skipped)
        if names is not None:
            names = None if stack.parameters is None else names | stack.parameters
        unseen.update(dict.fromkeys(stack.unseen))
        for finding in run(RULES.values(), stack):
            if finding.code in ignore or is_silenced(finding, stack, lines):
                silenced += 1
            else:
                findings[finding] = None
    ordered = sorted(findings, key=sort_key)
    return Report(ordered, functions, list(unseen), silenced, skipped, names)


def lint(path: str) -> list[Finding]:
    """Return the findings in a template, worst first. Raise TemplateError like `check`."""
    return check(path).findings


def read(path: str, parameters: Mapping[str, str] | None = None) -> Stack:
    """Return the stack of a template. Raise TemplateError, of one line, if it cannot be read."""
    return read_all(path, parameters)[0]


def read_all(path: str, parameters: Mapping[str, str] | None = None) -> list[Stack]:
    """Return the stacks of a template or of a folder. Raise TemplateError like `check`."""
    try:
        if os.path.isdir(path) and not terraform.files_in(path):
            return _read_templates(path, parameters)
        return [_read_file(path, parameters)]
    except TemplateError as error:
        # The stack knows no path; a reader puts its own in front.
        raise error if str(error).startswith(path) else TemplateError(f"{path}: {error}") from None
    except RecursionError as error:
        raise TemplateError(f"{path}: nested too deeply") from error


def _read_templates(folder: str, parameters: Mapping[str, str] | None) -> list[Stack]:
    """Return the stacks of a folder's templates; those without resources are left out."""
    stacks = []
    for path in _templates_in(folder):
        is_assembly = path.endswith(".template.json")
        if not is_assembly or _has_resources(path):
            stacks.append(_read_file(path, parameters))
    return stacks or [Stack([])]


def _has_resources(path: str) -> bool:
    """Return False if a template of the CDK, such as that of an app of stages, makes nothing."""
    tree = parse(load(path), path)
    return not isinstance(tree, Map) or bool(tree.get("Resources"))


def _read_file(path: str, parameters: Mapping[str, str] | None) -> Stack:
    if os.path.isdir(path) or path.endswith(terraform.ENDINGS):
        return terraform.read(path, parameters)
    if path.endswith(".hcl"):
        raise TemplateError(f"{path}: Terragrunt is not read; {plan.HINT}")
    is_plan = path.endswith(".json") and plan.is_plan(path)
    if is_plan:
        return plan.read(path)
    tree = parse(load(path), path)
    if serverless.is_service(tree):
        return serverless.read(tree, path, parameters)
    return cloudformation.read(tree, path, parameters)


def _templates_in(folder: str) -> list[str]:
    """Return the templates of a folder without Terraform files, such as cdk.out."""
    base = glob.escape(folder)
    for name in ("serverless.yml", "serverless.yaml"):
        if os.path.isfile(os.path.join(folder, name)):
            return [os.path.join(folder, name)]
    paths = sorted(glob.glob(f"{base}/**/*.template.json", recursive=True))
    paths += sorted(
        path
        for end in ("yaml", "yml", "json", "template")
        for path in glob.glob(f"{base}/*.{end}")
        if path not in paths and _is_template(path)
    )
    if len(paths) > _MAX_TEMPLATES:
        raise TemplateError(f"{folder}: over {_MAX_TEMPLATES} templates: name one of them")
    if not paths:
        raise TemplateError(f"{folder}: no template in this folder: {_why_none(folder)}")
    return paths


def _is_template(path: str) -> bool:
    try:
        tree: Any = parse(load(path), path)
    except TemplateError:
        return False
    resources = tree.get("Resources") if isinstance(tree, Map) else None
    return isinstance(resources, Map) and any(
        isinstance(body, Map) and str(body.get("Type")).startswith("AWS::")
        for body in resources.values()
    )


def _why_none(folder: str) -> str:
    names = set(os.listdir(folder))
    if "cdk.json" in names:
        return "run `cdk synth` and check the folder cdk.out"
    if "terragrunt.hcl" in names:
        return f"Terragrunt is not read; {plan.HINT}"
    if names & {"Pulumi.yaml", "Pulumi.yml"}:
        return cloudformation.PULUMI
    return _FOLDER
