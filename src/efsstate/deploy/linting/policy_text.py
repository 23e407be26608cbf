"""Policies that Terraform writes as text: parsed, with the references in them."""

from __future__ import annotations

import json
from typing import Any

from efsstate.deploy.linting.hcl_text import PIECE, RESOURCE
from efsstate.deploy.linting.values import Joined, Ref, Unknown, is_known


def parse_json(value: Any) -> Any:
    """Return a policy written as text as the document that it is."""
    is_text = is_known(value) or isinstance(value, Joined)
    if not is_text or not value.lstrip().startswith("{"):
        return Unknown(value) if is_text else value
    try:
        document = json.loads(value)
    except (json.JSONDecodeError, RecursionError):
        return Unknown(value[:200])
    return _with_refs(document) if isinstance(value, Joined) else document


def _with_refs(part: Any) -> Any:
    """Return a parsed document with a reference for each `${NAME}` in its text."""
    if isinstance(part, dict):
        return {key: _with_refs(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_with_refs(value) for value in part]
    if not isinstance(part, str) or "${" not in part:
        return part
    whole = PIECE.fullmatch(part)
    if whole and RESOURCE.search(whole[1]):
        return Ref(whole[1], "?")  # the attribute is lost in the text
    names = tuple(name for name in PIECE.findall(part) if RESOURCE.search(name))
    return Joined(part, names) if names else Unknown(part)
