"""Load the limits and prices that the planner computes with: dated data that users can replace."""

from __future__ import annotations

import functools
import os
import tomllib
from typing import Any

KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40
Rates = dict[str, Any]


@functools.cache
def shipped() -> Rates:
    """Return the rates of this release."""
    path = os.path.join(os.path.dirname(__file__), "rates.toml")
    with open(path, "rb") as file:
        return tomllib.load(file)


def load(path: str | None) -> Rates:
    """Return the shipped rates, with those of the file at `path` in their place.

    Raise ValueError if the file has a table or a number that no rate has, and OSError.
    """
    if path is None:
        return shipped()
    with open(path, "rb") as file:
        try:
            own = tomllib.load(file)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path}: it is not TOML: {error}") from None
    merged = dict(shipped())
    for name, value in own.items():
        if name not in merged or isinstance(value, dict) != isinstance(merged[name], dict):
            raise ValueError(f"{path}: {name!r} is no table of rates; see rates.toml")
        merged[name] = _merge(path, name, merged[name], value) if isinstance(value, dict) else value
    return merged


def _merge(path: str, table: str, shipped_rates: Rates, own: Rates) -> Rates:
    for key, value in own.items():
        if key not in shipped_rates or isinstance(value, bool):
            raise ValueError(f"{path}: [{table}] {key}: there is no such rate; see rates.toml")
        if not isinstance(value, (int, float)) or value < 0:
            raise ValueError(f"{path}: [{table}] {key} = {value!r}: a number from 0 is needed")
    return shipped_rates | own
