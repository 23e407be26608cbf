"""Prints the table of docs/guarantees.md: what was explored, and what each broken rule leads to."""

import sys

from tests.checkpoints.model.explore import explore
from tests.checkpoints.model.protocol import Protocol, Rules
from tests.checkpoints.model.spaces import BROKEN, BROKEN_FULL, FULL, SPACES


def main(full):
    wrong = 0
    for name, options in {**SPACES, **(FULL if full else {})}.items():
        result = explore(Protocol(Rules(**options)))
        wrong += bool(result.found) or not result.complete
        print(f"{name}: {result}", flush=True)
    for name, options in {**BROKEN, **(BROKEN_FULL if full else {})}.items():
        result = explore(Protocol(Rules(**options)))
        wrong += not result.found
        print(f"without: {name}: {result}", flush=True)
        for what, trace in result.found.values():
            print("   ", what)
            if full:
                for step, (who, label) in enumerate(trace, 1):
                    print(f"   {step:3} {who} {label}")
    return wrong


if __name__ == "__main__":
    sys.exit(min(1, main("--full" in sys.argv)))
