"""Run rounds of a job's work: each round calls a function that continues from its last save."""

from __future__ import annotations

from efsstate import deadline
from efsstate.deadline import Invocation
from efsstate.errors import ClaimedError, ClaimLost

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    class HasFinished(Protocol):
        """A checkpoint, or the shards of one: it knows whether it is finished."""

        @property
        def finished(self) -> bool:
            """True once there is nothing left to do."""
            ...

    Work = Callable[[Any], HasFinished | dict[str, Any]]
    Collect = Callable[[Any], Any]

_STEPS = ("work", "collect")
_ORDER = {"step", "worker", "input"}  # the keys of the state machine's event


class Round:
    """The outcome of one round.

    finished: the job needs no further round, by any worker.
    idle: this worker got no work, because other workers hold all that is left.
    job: the checkpoint or the shards that the function returned, else None.
    reason: the text of the error that made it idle, else None.
    """

    __slots__ = ("finished", "idle", "job", "reason")

    def __init__(
        self, *, finished: bool, idle: bool = False, job: Any = None, reason: str | None = None
    ) -> None:
        self.finished, self.idle, self.job, self.reason = finished, idle, job, reason

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"Round({fields})"


def run_round(work: Work, event: Any) -> Round:
    """Call `work(event)` once, and return a `Round`, which says whether the job is finished.

    work: a function that goes through its checkpoint or its shards until shortly before the
        deadline, and returns that checkpoint or shards, or {"finished": bool}.

    If another worker holds the claim, or took it over, the round is idle. Raise TypeError if `work`
    returns anything else, and whatever `work` raises.
    """
    try:
        value = work(event)
    except (ClaimedError, ClaimLost) as error:
        return Round(finished=False, idle=True, reason=str(error))
    if isinstance(value, dict):
        finished, idle = value.get("finished"), value.get("idle") is True
    else:
        finished, idle = getattr(value, "finished", None), getattr(value, "claims", 1) == 0
    if not isinstance(finished, bool):
        name = getattr(work, "__qualname__", repr(work))
        raise TypeError(
            f"{name}: it returned {value!r:.80}, which does not say whether the job is finished;"
            ' return the checkpoint, its shards, or {"finished": job.finished}'
        )
    job = None if isinstance(value, dict) else value
    return Round(finished=finished, idle=idle and not finished, job=job)


def handler(work: Work, *, collect: Collect | None = None) -> Callable[..., dict[str, Any]]:
    """Return a Lambda handler that does one round of `work`, for the state machine of the template.

    work: a function of the job's input; see `run_round`.
    collect: a function of the same input, called once all is finished: it reads `results()`, and
        returns a value for JSON, at most 256 KiB, which is the execution's output.

    The handler takes {"step": "work", "worker": 7, "input": ...} and {"step": "collect", ...}; any
    other event is the job's input itself. It returns `finished` and `idle`, both bool, and after
    the step "collect" also `result`. While `finished` is false, call again; a worker that is idle
    may stop, because the holders of the rest go on. It logs its answer as a line of JSON.
    """

    def handle(event: Any, context: object = None) -> dict[str, Any]:
        step, worker, value = "work", None, event
        if isinstance(event, dict) and set(event) == _ORDER:
            step, worker, value = event["step"], event["worker"], event["input"]
            if step not in _STEPS:
                raise ValueError(f"event: {step!r} is not a step; it is one of {', '.join(_STEPS)}")
        with Invocation(context):
            outcome = run_round(work, value)
            answer: dict[str, Any] = {"finished": outcome.finished, "idle": outcome.idle}
            if step == "collect" and outcome.finished:
                answer["result"] = None if collect is None else collect(value)
        import json

        line = {"event": step, "worker": worker, **answer}
        line.pop("result", None)
        if outcome.reason is not None:
            line["reason"] = outcome.reason
        print(json.dumps(line))  # noqa: T201 - a function's log is its standard output
        return answer

    return deadline.copy_names(handle, work)  # type: ignore[no-any-return]
