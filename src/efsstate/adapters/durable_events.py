"""Emit events for the operations of AWS durable functions: their durations and outcomes.

@durable_execution(plugins=[EventsFactory()])
def handler(event, context): ...
"""

from __future__ import annotations

import sys
import time

from aws_durable_execution_sdk_python.plugin import DurableInstrumentationPlugin

from efsstate import events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from aws_durable_execution_sdk_python.plugin import (
        InvocationEndInfo,
        InvocationStartInfo,
        OperationEndInfo,
        UserFunctionEndInfo,
    )


class EventsFactory:
    """Make a plugin for each invocation, as the SDK's `plugins=` asks for.

    The plugin gives these events, of the kind "durable", to `on_event` and `metrics.record`:

    - `operation`, once an operation has its result: seconds, type, status, replayed.
    - `attempt`, after each run of a function of yours: seconds, type, outcome, attempt.
    - `invocation`, at its end: seconds, status, first.

    At the end of the invocation it writes metrics that were asked for, as `@invocation` does.
    """

    def create_plugin(self, info: InvocationStartInfo) -> EventsPlugin:  # noqa: ARG002
        """Return the plugin of one invocation."""
        return EventsPlugin()


class EventsPlugin(DurableInstrumentationPlugin):
    """Emit the events of one invocation; see `EventsFactory`."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def on_operation_end(self, info: OperationEndInfo) -> None:
        """Emit `operation`."""
        events.emit(
            "durable", "operation", _name(info), seconds=_seconds(info), type=_type(info),
            status=info.status.value, replayed=info.is_replayed,
        )  # fmt: skip

    def on_user_function_end(self, info: UserFunctionEndInfo) -> None:
        """Emit `attempt`."""
        events.emit(
            "durable", "attempt", _name(info), seconds=_seconds(info), type=_type(info),
            outcome=info.outcome.value, attempt=info.attempt or 1,
        )  # fmt: skip

    def on_invocation_end(self, info: InvocationEndInfo) -> None:
        """Emit `invocation`, and write the metrics, if there are any."""
        seconds = time.monotonic() - self._began
        events.emit(
            "durable", "invocation", info.execution_arn or "", seconds=seconds,
            status=info.status.value, first=info.is_first_invocation,
        )  # fmt: skip
        metrics = sys.modules.get("efsstate.metrics")
        if metrics is not None:
            metrics.flush()


def _name(info: Any) -> str:
    return info.name or info.operation_id  # type: ignore[no-any-return]


def _type(info: Any) -> str:
    return str(info.sub_type or info.operation_type.value)


def _seconds(info: Any) -> float:
    """Return the seconds from start to end by the service's clock, or 0 if one is missing."""
    if info.start_time is None or info.end_time is None:
        return 0.0
    seconds: float = (info.end_time - info.start_time).total_seconds()
    return max(0.0, seconds)
