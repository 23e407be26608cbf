"""Explore the checkpoints' protocol exhaustively (tests/checkpoints/model).

Each rule left out once.
"""

from tests.checkpoints.model.explore import explore
from tests.checkpoints.model.protocol import Protocol, Rules
from tests.checkpoints.model.spaces import BROKEN, SPACES


def run(seconds, seed):
    figures = {
        "spaces": len(SPACES),
        "states": 0,
        "steps": 0,
        "rules_left_out": len(BROKEN),
        "noticed": 0,
    }
    spaces, rules, wrong = {}, {}, []
    for name, options in SPACES.items():
        result = explore(Protocol(Rules(**options)))
        figures["states"] += result.states
        figures["steps"] += result.steps
        spaces[name] = [result.states, result.steps, len(result.found)]
        if result.found or not result.complete:
            wrong.append(f"{name}: {result}")
    for name, options in BROKEN.items():
        result = explore(Protocol(Rules(**options)))
        figures["noticed"] += bool(result.found)
        rules[name] = [f"{what} in {len(trace)} steps" for what, trace in result.found.values()][
            :1
        ] or ["nothing"]
        if not result.found:
            wrong.append(f"without {name}: nothing goes wrong")
    for text in wrong:
        print(f"model: VIOLATION: {text}", flush=True)
    return {"violations": len(wrong), **figures, "each_space": spaces, "each_rule": rules}
