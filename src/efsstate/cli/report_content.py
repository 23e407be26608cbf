"""Gather the data of `efsstate report`: a root, recorded activity, and a plan or a history."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

from efsstate.cli import stat
from efsstate.cli.inventory import Inventory
from efsstate.format import dataset_layout, layout

if TYPE_CHECKING:
    from collections.abc import Callable

    from efsstate.mount.files import Mount
    from efsstate.planning.history import History
    from efsstate.planning.plan import Plan

MOST_ROWS = 200  # of a table
_MOST_SPACE = 150  # places of the map
_DAY_HOURS = 24
_KINDS = ("Read", "Write")


def of_root(mount: Mount, advance: Callable[[float], None]) -> dict[str, Any]:
    """Return the content of the root: sums by namespace, and a row for each job and version."""
    inventory = Inventory(mount, None, advance)
    sums: dict[tuple[str, str], dict[str, Any]] = {}
    checkpoints: list[dict[str, Any]] = []
    models: list[dict[str, Any]] = []
    datasets: list[dict[str, Any]] = []
    going: dict[str, dict[str, int]] = {}
    for row in inventory.rows():
        stat.add(sums, row)
        if row["area"] == layout.CACHE and row["state"] != "live":
            reason = going.setdefault(row["state"], {"entries": 0, "bytes": 0})
            reason["entries"] += 1
            reason["bytes"] += row["size"]
        elif row["area"] == layout.CHECKPOINTS:
            checkpoints.append(_checkpoint(row))
        elif row["area"] == layout.MODELS:
            version = row["path"].rpartition("/versions/")[2] if "/versions/" in row["path"] else ""
            models.append({**_pick(row, "name", "size", "age", "state"), "version": version})
        elif row["area"] == dataset_layout.DATASETS:
            datasets.append(_pick(row, "name", "size", "age"))
    space = _largest(list(sums.values()))
    return {
        "root": mount.path,
        "now": inventory.now,
        "size": sum(row["size"] for row in space),
        "entries": sum(row["entries"] for row in space),
        "space": space,
        "checkpoints": heapq.nsmallest(MOST_ROWS, checkpoints, key=lambda row: row["age"]),
        "checkpoints_total": len(checkpoints),
        "checkpoint_states": _count(checkpoints),
        "models": models[:MOST_ROWS],
        "models_total": len({row["name"] for row in models}),
        "versions_total": len(models),
        "datasets": heapq.nlargest(MOST_ROWS, datasets, key=lambda row: row["size"]),
        "datasets_total": len(datasets),
        "going": going,
        "problems": inventory.problems,
    }


def _largest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the largest rows, and one for the others of each area: a page of 100,000 is none."""
    rows = sorted(rows, key=lambda row: -row["size"])
    others: dict[str, dict[str, Any]] = {}
    counts: dict[str, int] = {}
    for row in rows[_MOST_SPACE:]:
        area = row["area"]
        counts[area] = counts.get(area, 0) + 1
        total = others.setdefault(
            area, {**row, "name": "", "entries": 0, "size": 0, "oldest": 0.0, "gone": 0}
        )
        for name in ("entries", "size", "gone"):
            total[name] += row[name]
        total["oldest"] = max(total["oldest"], row["oldest"])
        total["name"] = f"({counts[area]:,} others)"
    return sorted([*rows[:_MOST_SPACE], *others.values()], key=lambda row: -row["size"])


def _pick(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names}


def _count(rows: list[dict[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    return counts


def _checkpoint(row: dict[str, Any]) -> dict[str, Any]:
    status = row["status"]
    names = ("items", "saves", "attempts", "skipped", "saved")
    return {
        **_pick(row, "name", "state", "size", "age"),
        **{name: status[name] for name in names},
        "position": str(status["position"] or ""),
        "shards": status["shards"],
    }


def of_plan(plan: Plan) -> dict[str, Any]:
    """Return the part about cost and credits; the balance of credits is by day, in bytes."""
    from efsstate.planning.advice import advise

    return {
        **plan.as_dict(),
        "advice": advise(plan),
        "credits_by_day": plan.credits.balance[_DAY_HOURS - 1 :: _DAY_HOURS],
        "balance": plan.balance,
    }


def of_history(history: History, plan: Plan) -> dict[str, Any]:
    """Return the days of a history: metered bytes, the balance, and the cost in Elastic mode."""
    balances = history.sums.get("BurstCreditBalance", {})
    prices = plan.rates["elastic"]
    days = []
    for day in range(round(history.days)):
        minutes = range(day * 1440, (day + 1) * 1440)
        known = [balances[minute] for minute in minutes if minute in balances]
        read, written = (_elastic_bytes(history, kind, minutes, prices) for kind in _KINDS)
        days.append(
            {
                "time": history.start + day * 86_400,
                "metered": _sum(history.sums, "MeteredIOBytes", minutes),
                "balance": min(known) if known else None,
                "cost": read / 2**30 * prices["read_gb"] + written / 2**30 * prices["write_gb"],
            }
        )
    return {**history.as_dict(), "days": days}


def _elastic_bytes(history: History, kind: str, minutes: range, limits: dict[str, float]) -> float:
    """Return the bytes of `kind` that Elastic meters at least, data and metadata."""
    total = 0.0
    for area, least in (("Data", limits["least_data"]), ("Metadata", limits["least_metadata"])):
        name = f"{area}{kind}IOBytes"
        operations = _sum(history.counts, name, minutes)
        total += max(_sum(history.sums, name, minutes), least * operations)
    return total


def _sum(series: dict[str, dict[int, float]], name: str, minutes: range) -> float:
    values = series.get(name, {})
    return sum(values.get(minute, 0.0) for minute in minutes)
