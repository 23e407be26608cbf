"""Run a job in a container: `python -m efsstate.worker module:function --input '{"job": 1}'`.

Exit codes: 0 finished, or idle for as long as `--idle` says; 75 not finished, run it again; 1 the
job's function raised; 2 bad usage.
"""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

from efsstate import deadline
from efsstate.errors import DeadlineExceeded
from efsstate.units import seconds
from efsstate.workers import run_round

if TYPE_CHECKING:
    from collections.abc import Callable

    from efsstate.workers import Round

FINISHED, FAILED, USAGE, AGAIN = 0, 1, 2, 75  # 75 is EX_TEMPFAIL of sysexits.h
# Errors of a mount or of a time limit: the next attempt may not meet them. Subclasses such as
# FileNotFoundError are errors of the job.
_PASSING = (OSError, TimeoutError, DeadlineExceeded)

LOOK = 10.0  # seconds between an idle worker's looks at how many shards are unfinished
_CLAIMED = 10.0  # seconds of idle time for each shard that others hold: trying one is 6 requests
_SHORT = 2.0  # seconds before the deadline in which no shard is begun
_STEP = 0.25  # seconds after which a sleeping worker notices SIGTERM


def main(argv: list[str] | None = None) -> int:
    """Run rounds of the job until it is finished, the limit is near, or SIGTERM comes.

    Return the exit code.
    """
    options = _parser().parse_args(argv)
    try:
        function = _load(options.function)
        limit = None if options.limit is None else seconds(options.limit, "--limit")
        patience = None if options.idle is None else seconds(options.idle, "--idle")
        value = json.loads(options.input)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        print(f"efsstate.worker: {error}", file=sys.stderr)  # noqa: T201 - a command's output
        return USAGE
    with deadline.Invocation(limit=limit) as run:
        before = signal.signal(signal.SIGTERM, lambda *_: run.end_soon())
        try:
            if options.collect:
                return _collect(function, value)
            return _work(function, value, patience)
        except Exception as error:
            traceback.print_exc()
            return AGAIN if type(error) in _PASSING else FAILED
        finally:
            signal.signal(signal.SIGTERM, before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m efsstate.worker",
        description="Run a job's work in this process until the job is finished.",
        epilog="Exit codes: 0 finished, or idle for --idle; 75 not finished, run it again;"
        " 1 the function raised; 2 bad usage.",
    )
    parser.add_argument("function", metavar="module:function", help="The job's work.")
    parser.add_argument("--input", default="null", metavar="JSON", help="Its argument.")
    parser.add_argument(
        "--limit", metavar="DURATION", help="End in order before this long, e.g. 55m, with code 75."
    )
    parser.add_argument(
        "--idle",
        metavar="DURATION",
        help="End with code 0 after waiting this long for shards that other workers hold; without"
        " it, wait until the job is finished.",
    )
    parser.add_argument(
        "--collect",
        action="store_true",
        help="Call the function once, and print its return value as JSON.",
    )
    return parser


def _load(spec: str) -> Callable[[Any], Any]:
    module, colon, name = spec.partition(":")
    if not module or not colon or not name:
        raise ValueError(f"{spec}: not module:function, such as batch:read_pictures")
    function = getattr(importlib.import_module(module), name)
    if not callable(function):
        raise TypeError(f"{spec}: not a function, but {type(function).__name__}")
    return function  # type: ignore[no-any-return]


def _work(function: Callable[[Any], Any], value: Any, patience: float | None) -> int:
    idle_since: float | None = None
    open_shards: int | None = None  # after the round before
    while True:
        outcome = run_round(function, value)
        unfinished = getattr(outcome.job, "unfinished", None)
        before, open_shards = open_shards, None if unfinished is None else unfinished()
        has_progress = open_shards is not None and (before is None or open_shards < before)
        code = _code(outcome, has_progress=has_progress)
        if outcome.idle and code is None:
            now = time.monotonic()
            idle_since = idle_since or now
            latest = None if patience is None else idle_since + patience
            if latest is not None and now >= latest:
                code = FINISHED
        elif not outcome.idle:
            idle_since = None
        if code is not None:
            answer = {"event": "worker", "finished": outcome.finished, "idle": outcome.idle}
            print(json.dumps({**answer, "exit": code}), flush=True)  # noqa: T201
            return code
        if outcome.idle:
            _wait(unfinished, latest)


def _code(outcome: Round, *, has_progress: bool) -> int | None:
    """Return the exit code after a round; None if another round comes."""
    if outcome.finished:
        return FINISHED
    remaining = deadline.remaining()
    if remaining is None:
        return None
    # A round that was not idle and finished no shard ended because its deadline was near: other
    # rounds would claim shards and leave them, until the time is up.
    return AGAIN if remaining <= _SHORT or not (outcome.idle or has_progress) else None


def idle_seconds(unfinished: int) -> float:
    """Return how long an idle worker waits until it tries to claim one of the unfinished shards."""
    return LOOK + _CLAIMED * unfinished


def _wait(unfinished: Callable[[], int] | None, latest: float | None) -> None:
    """Wait until it is worth trying again to claim something, at one request a second at most.

    Trying costs requests for each shard that others hold, so the wait grows with their number.
    """
    started = time.monotonic()
    while True:
        open_shards = 1 if unfinished is None else unfinished()
        end = started + idle_seconds(open_shards)
        if open_shards == 0 or time.monotonic() >= (end if latest is None else min(end, latest)):
            return
        wake = min(time.monotonic() + LOOK, end if latest is None else min(end, latest))
        while time.monotonic() < wake:
            if deadline.remaining() == 0:
                return
            time.sleep(_STEP)


def _collect(function: Callable[[Any], Any], value: Any) -> int:
    from efsstate.errors import ShardsError

    try:
        result = function(value)
    except ShardsError as error:
        print(f"efsstate.worker: {error}", file=sys.stderr)  # noqa: T201
        return AGAIN
    print(json.dumps(result), flush=True)  # noqa: T201 - a command's output
    return FINISHED


if __name__ == "__main__":
    sys.exit(main())
