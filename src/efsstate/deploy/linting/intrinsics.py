"""Follows CloudFormation's intrinsic functions: references, text put together, conditions with the parameters at their defaults."""

from __future__ import annotations

import json
import re
from typing import Any

from efsstate.deploy.linting.located_yaml import Map, Seq
from efsstate.deploy.linting.values import Joined, Ref, Unknown, known
from efsstate.errors import TemplateError

_GONE = Unknown("AWS::NoValue")
_SUB = re.compile(r"\$\{([^!][^}]*)\}")
MAX_RESOLVED = 500_000


class Intrinsics:
    """The names of one template, and what they stand for."""

    def __init__(self, tree: Map, resources: Map, path: str) -> None:
        """`resources`: the template's own, whose names a Ref may have."""
        self.raw, self.path = resources, path
        self.parameters, self.mappings, self.conditions = (
            part if isinstance(part := tree.get(name), Map) else Map()
            for name in ("Parameters", "Mappings", "Conditions")
        )
        self.deciding: set[str] = set()
        self.work = 0

    def mentions(self, raw: Any) -> set[str]:
        """Names in Ref and GetAtt, branches not taken included: they hold the order of creation all the same."""
        found: set[str] = set()
        todo = [raw]
        while todo:
            one = todo.pop()
            if isinstance(one, dict):
                for key, value in one.items():
                    if key == "Ref" and isinstance(value, str):
                        found.add(value)
                    elif key == "Fn::GetAtt":
                        found.add(
                            str(value[0] if isinstance(value, list) and value else value).split(
                                "."
                            )[0]
                        )
                    elif key == "Fn::Sub":
                        found.update(
                            m.split(".")[0]
                            for m in _SUB.findall(
                                str(value[0] if isinstance(value, list) and value else value)
                            )
                        )
                        todo.append(value)
                    else:
                        todo.append(value)
            elif isinstance(one, list):
                todo.extend(one)
        return found

    def resolve(self, raw: Any) -> Any:
        """A value with its references followed: Map and Seq of text, Ref, Unknown and Joined."""
        self.work += 1
        if self.work > MAX_RESOLVED:
            raise TemplateError(
                f"{self.path}: its references unfold to over {MAX_RESOLVED:,} values: larger than any template"
            )
        if isinstance(raw, Seq):
            made = Seq(raw.line)
            made.extend(value for value in map(self.resolve, raw) if value is not _GONE)
            return made
        if not isinstance(raw, Map):
            return Unknown(raw) if isinstance(raw, str) and "{{resolve:" in raw else raw
        if len(raw) == 1:
            ((name, argument),) = raw.items()
            if name == "Ref" or name.startswith("Fn::"):
                return self._intrinsic(name, argument, raw)
        whole = Map(raw.line)
        whole.lines = raw.lines
        for key, value in raw.items():
            resolved = self.resolve(value)
            if resolved is not _GONE:
                whole[key] = resolved
        return whole

    def _intrinsic(self, name: str, argument: Any, raw: Map) -> Any:
        simple = {
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
            value = simple(argument) if simple else None
        except (TypeError, ValueError, IndexError, KeyError, AttributeError):
            value = None  # an intrinsic with arguments that it does not take: cfn-lint's business
        return Unknown(json.dumps(raw, default=str)[:500]) if value is None else value

    def _ref(self, name: Any) -> Any:
        if not isinstance(name, str):
            return None
        if name == "AWS::NoValue":
            return _GONE
        if name in self.raw:
            return Ref(name)
        parameter = self.parameters.get(name)
        if isinstance(parameter, dict) and isinstance(parameter.get("Default"), str):
            default, kind = parameter["Default"], str(parameter.get("Type", ""))
            if default and not kind.startswith("AWS::SSM"):
                return [one.strip() for one in default.split(",")] if "List" in kind else default
            if not default and kind == "String":
                return default
        return Unknown("${" + name + "}")

    def _get_att(self, argument: Any) -> Any:
        name, _, attribute = (
            str(argument).partition(".")
            if isinstance(argument, str)
            else (str(argument[0]), "", str(argument[1]))
        )
        nested = attribute.startswith("Outputs.") or name not in self.raw
        return Unknown("${" + name + "." + attribute + "}") if nested else Ref(name)

    def _sub(self, argument: Any) -> Any:
        text, own = (argument, {}) if isinstance(argument, str) else (argument[0], argument[1])
        refs: list[str] = []
        open_ended = False

        def one(match: re.Match[str]) -> str:
            nonlocal open_ended
            name = match[1].strip()
            value = (
                self.resolve(own[name])
                if name in own
                else self._get_att(name)
                if "." in name
                else self._ref(name)
            )
            if isinstance(value, Ref):
                refs.append(str(value))
                return "${" + str(value) + "}"
            if isinstance(value, Joined):
                refs.extend(value.refs)
            if isinstance(value, str) and not isinstance(value, Unknown):
                return str(value)
            open_ended = True
            return "${" + name + "}"

        made = _SUB.sub(one, text).replace("${!", "${")
        if "{{resolve:" in made:
            return Unknown(made)
        if len(refs) == 1 and made == "${" + refs[0] + "}":
            return Ref(refs[0])
        return Joined(made, tuple(refs)) if refs or open_ended else made

    def _join(self, argument: Any) -> Any:
        between, parts = argument
        values = self.resolve(parts)
        if not isinstance(values, list):
            return None
        refs: list[str] = []
        pieces, open_ended = [], False
        for value in values:
            if isinstance(value, Ref):
                refs.append(str(value))
                pieces.append("${" + str(value) + "}")
            elif isinstance(value, str):
                refs.extend(value.refs if isinstance(value, Joined) else ())
                open_ended |= isinstance(value, Unknown | Joined)
                pieces.append(str(value))
            else:
                return None
        made = str(between).join(pieces)
        return Joined(made, tuple(refs)) if refs or open_ended else made

    def _choose(self, argument: Any) -> Any:
        name, yes, no = argument
        taken = self.decide(name)
        if taken is None:
            left, right = self.resolve(yes), self.resolve(no)
            return left if left == right else None
        return self.resolve(yes if taken else no)

    def _select(self, argument: Any) -> Any:
        index, of = argument
        if isinstance(of, dict) and "Fn::GetAZs" in of:
            return f"zone {self.resolve(index)} of the region"  # another index is another zone
        values = self.resolve(of)
        return values[int(self.resolve(index))] if isinstance(values, list) else None

    def _split(self, argument: Any) -> Any:
        between, text = argument[0], self.resolve(argument[1])
        return str(text).split(between) if known(text) else None

    def _find_in_map(self, argument: Any) -> Any:
        keys = [self.resolve(one) for one in argument[:3]]
        value: Any = self.mappings
        for key in keys:
            if not known(key):
                return None
            value = value[key]
        return self.resolve(value)

    def decide(self, condition: Any) -> bool | None:
        """Whether a condition, or the name of one, holds with the defaults; None where that is not known."""
        if isinstance(condition, str):
            if (
                condition in self.deciding
                or condition not in self.conditions
                or len(self.deciding) > 50
            ):
                return None
            self.deciding.add(condition)
            try:
                return self.decide(self.conditions[condition])
            finally:
                self.deciding.discard(condition)
        if not isinstance(condition, dict) or len(condition) != 1:
            return None
        ((name, argument),) = condition.items()
        self.work += 1
        if self.work > MAX_RESOLVED:
            raise TemplateError(
                f"{self.path}: its conditions unfold to over {MAX_RESOLVED:,} steps: larger than any template"
            )
        if name == "Condition":
            return self.decide(str(argument))
        if not isinstance(argument, list):
            return None
        if name == "Fn::Equals" and len(argument) == 2:
            left, right = (self.resolve(one) for one in argument)
            if isinstance(left, str) and isinstance(right, str) and known(left) and known(right):
                return left == right
            return None
        parts = [self.decide(one) for one in argument]
        if name == "Fn::Not" and len(parts) == 1:
            return None if parts[0] is None else not parts[0]
        if name == "Fn::And":
            return False if False in parts else None if None in parts else True
        if name == "Fn::Or":
            return True if True in parts else None if None in parts else False
        return None
