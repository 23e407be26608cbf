"""Facts about AWS that code and pages quote, from `aws_facts.toml`: figure, source and date.

`docs/aws-facts.md` is generated from them. A link to it such as [74.5 MiB/s](aws-facts.md#network)
must have the fact's own text, which a test compares, so that a change is made in one place.
"""

from __future__ import annotations

import functools
import os
import tomllib
from typing import NamedTuple


class Fact(NamedTuple):
    """A fact about AWS: its key, the figure as it is quoted, its meaning, and where it was read."""

    key: str
    text: str
    meaning: str
    source: str
    read: str
    value: float | None = None
    """The figure as a number, in the unit of the text."""


@functools.cache
def facts() -> dict[str, Fact]:
    """Return all facts by key."""
    path = os.path.join(os.path.dirname(__file__), "aws_facts.toml")
    with open(path, "rb") as file:
        return {key: Fact(key, **row) for key, row in tomllib.load(file).items()}


def quote(key: str) -> str:
    """Return a figure as it is quoted."""
    return facts()[key].text


def number(key: str) -> float:
    """Return a figure as a number."""
    value = facts()[key].value
    if value is None:
        raise ValueError(f"aws_facts.toml: {key} has no value")
    return value


def page() -> str:
    """Return the page of all facts."""
    head = (
        "# Facts about AWS\n\n"
        "Generated from `src/efsstate/deploy/aws_facts.toml`. The project's tests never ran on\n"
        "AWS: these figures were read in the sources named, at the date given, and may have\n"
        "changed. Prices are in dollars, for us-east-1, and were not checked against a bill.\n\n"
        "| fact | figure | what it is | source | read |\n|---|---|---|---|---|\n"
    )
    rows = [
        f'| <a id="{fact.key}"></a>{fact.key} | {fact.text} | {fact.meaning} | {fact.source} '
        f"| {fact.read} |"
        for fact in facts().values()
    ]
    return head + "\n".join(rows) + "\n"
