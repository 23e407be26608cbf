"""What a property of a template can be once references are followed: text, a resource, or something known only when deployed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self


class Ref(str):
    """A resource of the same template, by its name; which attribute of it does not matter to the rules."""

    __slots__ = ()


class Unknown(str):
    """Known only at deployment; the text is the expression, so that the same expression is the same value."""

    __slots__ = ()


class Joined(str):  # noqa: SLOT000 - a str with a field has a dict
    """Text put together from pieces, of which some are references, named `${Name}` in it."""

    refs: tuple[str, ...]

    def __new__(cls, text: str, refs: tuple[str, ...]) -> Self:
        """Text, and the names of the resources in it."""
        made = super().__new__(cls, text)
        made.refs = refs
        return made


def target(value: Any) -> str | None:
    """The resource that a value leads to, if it is in the template."""
    if isinstance(value, Ref):
        return str(value)
    if isinstance(value, Joined) and value.refs:
        return value.refs[-1]
    return None


def known(value: Any) -> bool:
    """Whether the value is text as it will be deployed."""
    return isinstance(value, str) and not isinstance(value, Ref | Unknown | Joined)


def text(value: Any) -> str | None:
    """The value as text, or None where it is not known."""
    return str(value) if known(value) else None


def number(value: Any) -> float | None:
    """The value as a number, or None where it is not known or not one."""
    if isinstance(value, bool) or not known(
        str(value) if isinstance(value, int | float) else value
    ):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def true(value: Any) -> bool | None:
    """The value as a truth value, or None where it is not known."""
    if not known(value):
        return None
    return str(value).lower() in ("true", "yes", "on", "1")


def items(value: Any) -> list[Any]:
    """The value as a list: one thing is a list of one, nothing is an empty one."""
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list) else [value]


def walk(value: Any) -> Iterator[Any]:
    """Every value inside a value that is no dict or list."""
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            todo.extend(one.values())
        elif isinstance(one, list):
            todo.extend(one)
        else:
            yield one
