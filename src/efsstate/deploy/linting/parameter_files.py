"""Values of parameters given on the command line: NAME=VALUE, or a file of them."""

from __future__ import annotations

from collections.abc import Iterable

from efsstate.deploy.linting import terraform
from efsstate.deploy.linting.located_yaml import Map, load, parse
from efsstate.deploy.linting.values import text
from efsstate.errors import TemplateError


def read_parameters(given: Iterable[str]) -> dict[str, str]:
    """Return values by name, from NAME=VALUE and from files, the later ones winning.

    A file is CloudFormation's list of ParameterKey and ParameterValue, a mapping in JSON or YAML,
    or one that ends in .tfvars. Raise TemplateError if it is none of these.
    """
    values: dict[str, str] = {}
    for part in given:
        if name := parameter_name(part):
            values[name] = part.partition("=")[2]
        else:
            values.update(_read_file(part))
    return values


def parameter_name(given: str) -> str:
    """Return the name in NAME=VALUE; empty if `given` is the path of a file."""
    name, separator, _ = given.partition("=")
    is_name = name.replace("_", "").replace("-", "").isalnum()
    return name if separator and is_name else ""


def _read_file(path: str) -> dict[str, str]:
    source = load(path)
    if path.endswith(".tfvars"):
        tree = terraform.parse(source, path)
        return {key: _plain(value) for key, value in tree.items() if not key.startswith("__")}
    document = parse(source, path)
    if isinstance(document, Map) and isinstance(document.get("Parameters"), Map):
        document = document["Parameters"]
    if isinstance(document, Map):
        return {key: str(value) for key, value in document.items() if text(value) is not None}
    try:
        return {str(row["ParameterKey"]): str(row["ParameterValue"]) for row in document}
    except (TypeError, KeyError):
        raise TemplateError(f"{path}: not a file of parameters: a mapping or a list") from None


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(str(part) for part in value) + "]"
    return str(value).strip('"')
