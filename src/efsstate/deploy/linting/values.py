"""Values of a resolved template: text, references, and text known only at deployment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self


class Ref(str):
    """A resource of the same template, by name, with the attribute that is read from it.

    `attribute` is "" for CloudFormation's Ref and Terraform's `id`, and "Arn" for an ARN.
    """

    __slots__ = ("attribute",)
    attribute: str

    def __new__(cls, name: str, attribute: str = "") -> Self:
        """Refer to the resource `name`."""
        ref = super().__new__(cls, name)
        ref.attribute = attribute
        return ref


class Unknown(str):
    """A value known only at deployment.

    Its text is the expression, so that two equal expressions are equal values.
    """

    __slots__ = ()


class Joined(str):
    """Text put together from pieces, of which some are references, named `${Name}` in it."""

    __slots__ = ("refs",)
    refs: tuple[str, ...]

    def __new__(cls, text: str, refs: tuple[str, ...]) -> Self:
        """Join `text`, in which the resources `refs` are named."""
        joined = super().__new__(cls, text)
        joined.refs = refs
        return joined


def target(value: Any) -> str | None:
    """Return the name of the resource that a value leads to, if it is in the template."""
    if isinstance(value, Ref):
        return str(value)
    if isinstance(value, Joined) and value.refs:
        return value.refs[-1]
    return None


def is_known(value: Any) -> bool:
    """Return True if the value is text exactly as it will be deployed."""
    return isinstance(value, str) and not isinstance(value, Ref | Unknown | Joined)


def text(value: Any) -> str | None:
    """Return the value as text, or None if it is not known."""
    return str(value) if is_known(value) else None


def number(value: Any) -> float | None:
    """Return the value as a number, or None if it is unknown or not numeric."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        return float(value) if is_known(value) else None
    except ValueError:
        return None


def items(value: Any) -> list[Any]:
    """Return the value as a list: a single value is a list of one, None and "" an empty one."""
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list) else [value]


def walk(value: Any) -> Iterator[Any]:
    """Yield every scalar inside a value."""
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            pending.extend(part.values())
        elif isinstance(part, list):
            pending.extend(part)
        else:
            yield part


def any_of(verdicts: Iterable[bool | None]) -> bool | None:
    """Return True if a verdict is True, else None if one is unknown, else False."""
    seen = set(verdicts)
    return True if True in seen else None if None in seen else False


def all_of(verdicts: Iterable[bool | None]) -> bool | None:
    """Return False if a verdict is False, else None if one is unknown, else True."""
    seen = set(verdicts)
    return False if False in seen else None if None in seen else True


def negated(verdict: bool | None) -> bool | None:
    """Return the opposite of a verdict; unknown stays unknown."""
    return None if verdict is None else not verdict
