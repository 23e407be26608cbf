"""Checks a template: finds its language, reads it into a Stack, and runs the rules over it."""

from __future__ import annotations

import os

from efsstate.deploy.findings import Finding, run
from efsstate.deploy.linting import cloudformation, terraform
from efsstate.deploy.linting.located_yaml import load, parse
from efsstate.deploy.linting.stack import Stack
from efsstate.deploy.rules import RULES
from efsstate.errors import TemplateError

__all__ = ["lint", "read"]


def read(path: str) -> Stack:
    """The stack in a SAM or CloudFormation template (YAML or JSON), a Terraform file, or a folder of Terraform files.

    TemplateError, of one line, where it cannot be read or is none of these.
    """
    try:
        if os.path.isdir(path) or path.endswith((".tf", ".tf.json")):
            return terraform.read(path)
        return cloudformation.read(parse(load(path), path), path)
    except TemplateError as error:
        # The stack knows no path; a reader has put its own in front.
        raise error if str(error).startswith(path) else TemplateError(f"{path}: {error}") from None
    except RecursionError as error:
        raise TemplateError(f"{path}: nested too deeply") from error


def lint(path: str) -> list[Finding]:
    """What the rules find in a template, worst first. TemplateError as for `read`."""
    return list(run(RULES.values(), read(path)))
