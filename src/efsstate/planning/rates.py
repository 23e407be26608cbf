"""Load the limits and prices that the planner computes with: dated data that users can replace."""

from __future__ import annotations

import datetime as dt
import functools
import os
import tomllib
from typing import Any

from efsstate.errors import EfsStateError

KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40
HOME = "us-east-1"
Rates = dict[str, Any]

_HERE = os.path.dirname(__file__)
_TEXTS = ("region", "read", "source")
# A plan needs these; without another price, what it is for is left out and named.
_NEEDED = {
    "storage": ("standard",),
    "elastic": ("read_gb", "write_gb"),
    "provisioned": ("month_per_mib",),
}


class PricesMissingError(EfsStateError):
    """There are no prices for the region."""


def shipped(region: str = HOME) -> Rates:
    """Return the rates of this release for `region`. Raise PricesMissingError."""
    return load(None, region)


def load(path: str | None, region: str | None = None) -> Rates:
    """Return the limits and prices of `region`, with those of the file at `path` in their place.

    Without `region` it is the file's, else us-east-1. Raise PricesMissingError if neither has a
    price that every plan needs; ValueError if the file is for another region, or has a table or a
    number that no rate has; and OSError.
    """
    own = read_file(path) if path is not None else {}
    named = own.get("region")
    if region is not None and named is not None and region != named:
        raise ValueError(f"{path}: its prices are for {named}, not for {region}")
    region = region or named or HOME
    rates = _limits(region)
    dates = _merge(rates, _prices_of(region), None)
    dates = _merge(rates, own, path) or dates
    rates |= {"region": region, "read": "", "source": ""} | dates
    missing = [
        f"[{table}] {key}"
        for table, keys in _NEEDED.items()
        for key in keys
        if key not in rates[table]
    ]
    if missing:
        known = ", ".join(regions())
        raise PricesMissingError(
            f"{region}: prices are missing ({', '.join(missing)}); this release has those of"
            f" {known}; give others with --prices FILE, or read them with --prices FILE"
            " --update-prices"
        )
    return rates


def regions() -> list[str]:
    """Return the regions with prices in this release."""
    return sorted(name.removesuffix(".toml") for name in os.listdir(f"{_HERE}/prices"))


def age(read: str, today: dt.date) -> str:
    """Return how old data is that were read in a month ("2026-11") or on a day ("2026-11-29")."""
    try:
        parts = [int(part) for part in read.split("-")]
        moment = dt.date(*parts) if len(parts) == 3 else dt.date(parts[0], parts[1], 1)
    except (ValueError, IndexError, TypeError):
        return "of unknown age"
    if len(parts) == 3:
        days = (today - moment).days
        return "read today" if days <= 0 else f"{days} day{'s' * (days > 1)} old"
    months = 12 * (today.year - moment.year) + today.month - moment.month
    return "read this month" if months <= 0 else f"{months} month{'s' * (months > 1)} old"


def read_file(path: str) -> Rates:
    """Return the content of a file of rates. Raise ValueError if it is not TOML, and OSError."""
    with open(path, "rb") as file:
        try:
            return tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: it is not TOML: {error}") from None


@functools.cache
def _shipped_limits() -> Rates:
    return read_file(f"{_HERE}/limits.toml")


@functools.cache
def known_prices() -> Rates:
    """Return the prices of us-east-1, which has every price that the planner can use."""
    return read_file(f"{_HERE}/prices/{HOME}.toml")


def _limits(region: str) -> Rates:
    limits = {k: dict(v) for k, v in _shipped_limits().items() if isinstance(v, dict)}
    for row in _shipped_limits()["regional"]:
        if region in row["regions"]:
            limits[row["mode"]] |= {"read": row["read"], "write": row["write"]}
    return limits


def _prices_of(region: str) -> Rates:
    path = f"{_HERE}/prices/{region}.toml"
    return read_file(path) if region in regions() else {}


def _merge(rates: Rates, own: Rates, path: str | None) -> Rates:
    """Put the numbers of `own` into `rates`; return its texts."""
    texts: Rates = {}
    for name, value in own.items():
        if name in _TEXTS and isinstance(value, str):
            texts[name] = value
        elif isinstance(value, dict):
            for key, number in value.items():
                _require_rate(path, name, key, number)
            rates[name] = rates.get(name, {}) | value
        else:
            raise ValueError(f"{path}: {name!r} is no table of rates; see docs/cost.md")
    return texts


def _require_rate(path: str | None, table: str, key: str, number: object) -> None:
    """Raise ValueError unless there is such a rate, and the number can be one."""
    known = _shipped_limits().get(table, {}), known_prices().get(table, {})
    if not any(isinstance(rows, dict) and key in rows for rows in known):
        raise ValueError(f"{path}: [{table}] {key}: there is no such rate; see docs/cost.md")
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number < 1e18:
        raise ValueError(f"{path}: [{table}] {key} = {number!r}: a number from 0 is needed")
