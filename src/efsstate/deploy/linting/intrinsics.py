"""CloudFormation's intrinsic functions, resolved with the parameters at hand."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from efsstate.deploy.linting.conditions import Conditions
from efsstate.deploy.linting.located_yaml import Map, Seq
from efsstate.deploy.linting.values import Joined, Ref, Unknown, is_known
from efsstate.errors import TemplateError

_NO_VALUE = Unknown("AWS::NoValue")
_SUB = re.compile(r"\$\{([^!][^}]*)\}")
MAX_RESOLVED = 500_000


class PartialMap(Map):
    """A mapping of which a macro (`Fn::Transform`, `Fn::ForEach`) makes the rest.

    A name that is not written in it is unknown, not absent.
    """

    def __missing__(self, name: str) -> Any:
        return Unknown("${" + name + "}")

    def get(self, name: str, _default: Any = None) -> Any:
        """Return the value of a name, unknown if it is not written."""
        return self[name]


class Intrinsics:
    """The names of one template, with their values."""

    def __init__(
        self, tree: Map, resources: Map, path: str, parameters: Mapping[str, str] | None = None
    ) -> None:
        """Know the template's own `resources`, and the caller's values of its `parameters`."""
        self.raw, self.path = resources, path
        self.parameters, self.mappings, conditions = (
            part if isinstance(part := tree.get(name), Map) else Map()
            for name in ("Parameters", "Mappings", "Conditions")
        )
        self.values = dict(parameters or {})
        self.conditions = Conditions(conditions, self.resolve, self.count)
        self.work = 0

    def count(self) -> None:
        """Count a step. Raise TemplateError if the template unfolds to more than any real one."""
        self.work += 1
        if self.work > MAX_RESOLVED:
            limit = f"over {MAX_RESOLVED:,} values"
            raise TemplateError(f"{self.path}: its references unfold to {limit}; no template does")

    def mentions(self, raw: Any) -> set[str]:
        """Return the names in Ref and GetAtt, also in branches not taken: they order creation."""
        names: set[str] = set()
        pending = [raw]
        while pending:
            part = pending.pop()
            if isinstance(part, list):
                pending.extend(part)
            elif isinstance(part, dict):
                for key, value in part.items():
                    if key in ("Ref", "Fn::GetAtt", "Fn::Sub"):
                        names |= _names_in(key, value)
                    if key not in ("Ref", "Fn::GetAtt"):
                        pending.append(value)
        return names

    def resolve(self, raw: Any) -> Any:
        """Resolve the references in a value, to Map and Seq of text, Ref, Unknown and Joined."""
        self.count()
        if isinstance(raw, Seq):
            sequence = Seq(raw.line)
            sequence.extend(value for value in map(self.resolve, raw) if value is not _NO_VALUE)
            return sequence
        if not isinstance(raw, Map):
            return Unknown(raw) if isinstance(raw, str) and "{{resolve:" in raw else raw
        if len(raw) == 1:
            ((name, argument),) = raw.items()
            if name == "Ref" or name.startswith("Fn::"):
                return self._intrinsic(name, argument, raw)
        is_partial = any(key.startswith("Fn::") for key in raw)
        mapping = PartialMap(raw.line) if is_partial else Map(raw.line)
        mapping.lines = raw.lines
        for key, value in raw.items():
            resolved = self.resolve(value)
            if resolved is not _NO_VALUE:
                mapping[key] = resolved
        return mapping

    def _intrinsic(self, name: str, argument: Any, raw: Map) -> Any:
        function = {
            "Ref": self._ref,
            "Fn::GetAtt": self._get_att,
            "Fn::Sub": self._sub,
            "Fn::Join": self._join,
            "Fn::If": self._choose,
            "Fn::Select": self._select,
            "Fn::Split": self._split,
            "Fn::FindInMap": self._find_in_map,
        }.get(name)
        try:
            value = function(argument) if function else None
        except (TypeError, ValueError, IndexError, KeyError, AttributeError):
            value = None  # wrong arguments are cfn-lint's business
        return Unknown(json.dumps(raw, default=str)[:500]) if value is None else value

    def _ref(self, name: Any) -> Any:
        if not isinstance(name, str):
            return None
        if name == "AWS::NoValue":
            return _NO_VALUE
        if name in self.raw:
            return Ref(name)
        parameter = self.parameters.get(name)
        kind = str(parameter.get("Type", "")) if isinstance(parameter, dict) else ""
        if name in self.values:
            return _as_parameter(self.values[name], kind)
        default = parameter.get("Default") if isinstance(parameter, dict) else None
        if isinstance(default, str) and not kind.startswith("AWS::SSM"):
            if default:
                return _as_parameter(default, kind)
            if kind == "String":
                return default
        return Unknown("${" + name + "}")

    def _get_att(self, argument: Any) -> Any:
        if isinstance(argument, str):
            name, _, attribute = argument.partition(".")
        else:
            name, attribute = str(argument[0]), str(argument[1])
        if attribute.startswith("Outputs.") or name not in self.raw:
            return Unknown("${" + name + "." + attribute + "}")
        return Ref(name, attribute)

    def _sub(self, argument: Any) -> Any:
        text, own = (argument, {}) if isinstance(argument, str) else (argument[0], argument[1])
        pieces = _Pieces()

        def replace(match: re.Match[str]) -> str:
            name = match[1].strip()
            if name in own:
                value = self.resolve(own[name])
            else:
                value = self._get_att(name) if "." in name else self._ref(name)
            return pieces.add(value, "${" + name + "}")

        joined = _SUB.sub(replace, text).replace("${!", "${")
        return Unknown(joined) if "{{resolve:" in joined else pieces.joined(joined)

    def _join(self, argument: Any) -> Any:
        between, parts = argument
        values = self.resolve(parts)
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            return None
        pieces = _Pieces()
        return pieces.joined(str(between).join(pieces.add(value, str(value)) for value in values))

    def _choose(self, argument: Any) -> Any:
        name, yes, no = argument
        taken = self.conditions.decide(name)
        if taken is None:
            either, other = self.resolve(yes), self.resolve(no)
            return either if either == other else None
        return self.resolve(yes if taken else no)

    def _select(self, argument: Any) -> Any:
        index, choices = argument
        if isinstance(choices, dict) and "Fn::GetAZs" in choices:
            return f"zone {self.resolve(index)} of the region"  # another index is another zone
        values = self.resolve(choices)
        return values[int(self.resolve(index))] if isinstance(values, list) else None

    def _split(self, argument: Any) -> Any:
        between, text = argument[0], self.resolve(argument[1])
        return str(text).split(between) if is_known(text) else None

    def _find_in_map(self, argument: Any) -> Any:
        value: Any = self.mappings
        for key in map(self.resolve, argument[:3]):
            if not is_known(key):
                return None
            if key not in value:
                return self.resolve(argument[3]["DefaultValue"])
            value = value[key]
        return self.resolve(value)


class _Pieces:
    """The references and unknown parts of a text that is being put together."""

    def __init__(self) -> None:
        self.refs: list[str] = []
        self.has_unknown = False

    def add(self, value: Any, expression: str) -> str:
        """Return a piece as it stands in the text, where `expression` stands for an unknown one."""
        if isinstance(value, Ref):
            self.refs.append(str(value))
            self.attribute = value.attribute
            return "${" + str(value) + "}"
        if isinstance(value, Joined):
            self.refs.extend(value.refs)
            self.has_unknown |= not value.refs
            return str(value)
        if is_known(value):
            return str(value)
        self.has_unknown = True
        return expression

    def joined(self, text: str) -> str:
        """Return the whole text, as a Ref if it is nothing but one."""
        if len(self.refs) == 1 and text == "${" + self.refs[0] + "}":
            return Ref(self.refs[0], getattr(self, "attribute", ""))
        return Joined(text, tuple(self.refs)) if self.refs or self.has_unknown else text


def _as_parameter(value: str, kind: str) -> Any:
    """Return a parameter's value, as a list if its type is one."""
    return [part.strip() for part in value.split(",")] if "List" in kind else value


def _names_in(key: str, value: Any) -> set[str]:
    first = value[0] if isinstance(value, list) and value else value
    if key == "Ref":
        return {value} if isinstance(value, str) else set()
    if key == "Fn::GetAtt":
        return {str(first).split(".")[0]}
    return {name.split(".")[0] for name in _SUB.findall(str(first))}
