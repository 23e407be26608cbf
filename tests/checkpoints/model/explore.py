"""Breadth-first search of all behaviours of a model.

The first trace to a violation is a shortest one.
"""

import time
from array import array
from itertools import pairwise
from typing import NamedTuple


class Result(NamedTuple):
    states: int
    steps: int
    complete: bool
    found: dict  # kind of violation -> (what, the trace)
    seconds: float

    def __str__(self):
        said = (
            ", ".join(f"{kind} in {len(trace)} steps" for kind, (_, trace) in self.found.items())
            or "no violation"
        )
        end = "complete" if self.complete else "NOT complete"
        size = f"{self.states:,} states, {self.steps:,} steps"
        return f"{size}, {end}, {self.seconds:.0f} s: {said}"


def explore(model, *, limit=5_000_000, stop=True):
    """Every state that can be reached. `stop`: at the first violation. A model has `initial()`.

    And `next(state)`, which gives
    (label, state, violation or None).
    """
    started = time.monotonic()
    first = model.initial()
    number, states, parent = {first: 0}, [first], array("q", [-1])
    found, steps, at = {}, 0, 0

    def trace(i, last):
        path = []
        while i >= 0:
            path.append(states[i])
            i = parent[i]
        path.reverse()
        return [
            next(label for label, state, _ in model.next(a) if state == b)
            for a, b in pairwise(path)
        ] + [last]

    while at < len(states) and len(states) < limit and not (stop and found):
        for label, state, bad in model.next(states[at]):
            steps += 1
            if bad and bad.split()[0] not in found:
                found[bad.split()[0]] = (bad, trace(at, label))
            if number.setdefault(state, len(states)) == len(states):
                states.append(state)
                parent.append(at)
        at += 1
    return Result(len(states), steps, at >= len(states), found, time.monotonic() - started)
