"""Conditions of a CloudFormation template: decided, or compared with each other."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

from efsstate.deploy.linting.values import all_of, any_of, is_known, negated

MAX_ATOMS = 10  # undecided comparisons; all 2^10 combinations of them are tried
MAX_NESTED = 50


class Conditions:
    """The conditions of one template, with the parameters that are known."""

    def __init__(
        self, raw: dict[str, Any], resolve: Callable[[Any], Any], count: Callable[[], None]
    ) -> None:
        """Read the conditions `raw`; `resolve` follows references, `count` bounds the work."""
        self.raw, self._resolve, self._count = raw, resolve, count
        self._deciding: set[str] = set()
        self._assumed: dict[str, bool] = {}

    def decide(self, condition: Any) -> bool | None:
        """Return whether a condition, or the name of one, holds; None if that is not known."""
        if isinstance(condition, str):
            return self._decide_named(condition)
        if not isinstance(condition, dict) or len(condition) != 1:
            return None
        self._count()
        ((name, argument),) = condition.items()
        if name == "Condition":
            return self.decide(str(argument))
        if not isinstance(argument, list):
            return None
        if name == "Fn::Equals":
            return self._equals(argument)
        parts = [self.decide(part) for part in argument]
        if name == "Fn::Not" and len(parts) == 1:
            return negated(parts[0])
        return {"Fn::And": all_of, "Fn::Or": any_of}.get(name, lambda _: None)(parts)

    def _decide_named(self, name: str) -> bool | None:
        if name in self._deciding or name not in self.raw or len(self._deciding) > MAX_NESTED:
            return None
        self._deciding.add(name)
        try:
            return self.decide(self.raw[name])
        finally:
            self._deciding.discard(name)

    def _equals(self, sides: list[Any]) -> bool | None:
        if len(sides) != 2:
            return None
        values = [self._resolve(side) for side in sides]
        if all(map(is_known, values)):
            return bool(values[0] == values[1])
        return self._assumed.get(_atom(values))

    # ---- conditions that are not decided, compared with each other ----

    def may_coexist(self, one_name: str, other_name: str) -> bool:
        """Return True if both conditions can hold in one deployment, or if that is not known."""
        return any(
            self.decide(one_name) is not False and self.decide(other_name) is not False
            for _ in self._worlds(one_name, other_name)
        )

    def implies(self, one_name: str, other_name: str) -> bool:
        """Return True if the other condition holds in every deployment in which the first does."""
        if not other_name or one_name == other_name:
            return True
        return all(
            self.decide(one_name) is False or self.decide(other_name) is True
            for _ in self._worlds(one_name, other_name)
        )

    def _worlds(self, *names: str) -> Iterator[None]:
        """Assume each combination of the undecided comparisons in turn."""
        atoms = sorted({_atom(sides) for name in names for sides in self._undecided(name)})
        if len(atoms) > MAX_ATOMS:
            yield  # too many to try: nothing is assumed
            return
        try:
            for values in itertools.product((True, False), repeat=len(atoms)):
                self._assumed = dict(zip(atoms, values, strict=True))
                if _is_consistent([json.loads(atom) for atom in atoms if self._assumed[atom]]):
                    yield
        finally:
            self._assumed = {}

    def _undecided(self, name: str) -> Iterator[list[Any]]:
        pending, seen = [self.raw.get(name)], {name}
        while pending:
            part = pending.pop()
            if isinstance(part, list):
                pending.extend(part)
            elif isinstance(part, dict):
                for key, value in part.items():
                    if key == "Fn::Equals" and isinstance(value, list) and len(value) == 2:
                        sides = [self._resolve(side) for side in value]
                        if not all(map(is_known, sides)):
                            yield sides
                    elif key == "Condition" and isinstance(value, str) and value not in seen:
                        seen.add(value)
                        pending.append(self.raw.get(value))
                    else:
                        pending.append(value)


def _atom(sides: list[Any]) -> str:
    """Return a comparison's identity: a known side comes last."""
    ordered = sorted(sides, key=is_known)
    return json.dumps([[is_known(side), side] for side in ordered], default=str)


def _is_consistent(equalities: list[Any]) -> bool:
    """Return False if one unknown value would equal two different texts."""
    values: dict[str, Any] = {}
    for (_, unknown), (is_text, value) in equalities:
        if is_text and values.setdefault(json.dumps(unknown), value) != value:
            return False
    return True
