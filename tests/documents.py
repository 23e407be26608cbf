"""Hold every document that a command prints against the published schema, and allow no more.

The schema lets a later release add properties. A test does not: a property that it lacks is one
that nobody documented.
"""

import functools
import json

import jsonschema
import pytest
from jsonschema import Draft202012Validator

from efsstate.cli import output, schema


def closed(part):
    """Return the schema without room for undocumented properties."""
    if isinstance(part, list):
        return [closed(each) for each in part]
    if not isinstance(part, dict):
        return part
    shut = {key: closed(each) for key, each in part.items()}
    if part.get("type") == "object" and isinstance(part.get("properties"), dict):
        shut.setdefault("additionalProperties", False)
    return shut


@functools.cache
def validator(name):
    return Draft202012Validator(closed(schema.of(name)))


def forbid(constant):
    raise ValueError(f"{constant} is no JSON")


def check(text):
    """Return the document in `text`. Raise if it is not as the schema of its name says."""
    document = json.loads(text, parse_constant=forbid)
    name = document["schema"].removeprefix("efsstate.")
    error = jsonschema.exceptions.best_match(validator(name).iter_errors(document))
    assert error is None, f"{name}: {error.json_path}: {error.message}"
    return document


@pytest.fixture(autouse=True)
def checked_documents(monkeypatch):
    """Check every document that is printed in this process."""
    printed = output.click.echo

    class Click:
        def __getattr__(self, name):
            return getattr(output_click, name)

        @staticmethod
        def echo(text="", **options):
            if isinstance(text, str) and text.startswith('{"schema": "efsstate.'):
                check(text)
            printed(text, **options)

    output_click = output.click
    monkeypatch.setattr(output, "click", Click())
