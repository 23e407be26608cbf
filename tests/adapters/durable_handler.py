"""A durable handler under the SDK's local runner, in a process of its own: it prints the outcome.

The runner leaves its event loop and sockets open, which would be warnings of the tests' process.
"""

import json

import numpy as np
from aws_durable_execution_sdk_python.config import ChildConfig, Duration, MapConfig, StepConfig
from aws_durable_execution_sdk_python.execution import durable_execution
from aws_durable_execution_sdk_python.waits import (
    WaitForConditionConfig,
    WaitForConditionDecision,
)
from aws_durable_execution_sdk_python_testing.runner import DurableFunctionTestRunner

from efsstate import on_event
from efsstate.adapters.durable import EfsSerDes
from efsstate.adapters.durable_events import EventsFactory

calls, starts, seen, serdes = [], [], [], EfsSerDes()
on_event(seen.append)


def load():
    calls.append("load")
    return np.arange(100_000)


@durable_execution(plugins=[EventsFactory()])
def handler(event, context):
    starts.append(event)
    array = context.step(lambda _: load(), name="load", config=StepConfig(serdes=serdes))
    context.wait(Duration.from_seconds(1))  # the handler begins again after each wait
    batch = context.map(
        inputs=[1, 2, 3],
        func=lambda _, item, *__: array[:30_000] * item,
        config=MapConfig(serdes=serdes, item_serdes=serdes),
    )
    context.wait(Duration.from_seconds(1))
    large = context.run_in_child_context(
        lambda child: child.step(lambda _: "A" * 50_000, config=StepConfig(serdes=serdes)) * 6,
        name="child", config=ChildConfig(serdes=serdes),
    )  # fmt: skip
    state = context.wait_for_condition(
        check=lambda state, _: (*state, "x"),
        config=WaitForConditionConfig(
            wait_strategy=decide, initial_state=(), serdes=EfsSerDes(inline=0)
        ),
    )
    sums = [int(part.sum()) for part in batch.get_results()]
    return {"sums": sums, "large": len(large), "state": repr(state)}


def decide(state, _):
    if len(state) == 2:
        return WaitForConditionDecision.stop_polling()
    return WaitForConditionDecision.continue_waiting(Duration.from_seconds(1))


def main():
    with DurableFunctionTestRunner(handler=handler) as runner:
        result = runner.run(input="{}", execution_timeout=60)
    outcome = {"status": result.status.value, "result": result.result, "error": repr(result.error)}
    events = [event for event in seen if event["kind"] == "durable"]
    print(json.dumps({**outcome, "loads": len(calls), "starts": len(starts), "events": events}))


main()
