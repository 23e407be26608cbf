# pyright: strict
"""Checkpoints, models and the rest as users write them; a refused line ends with `# error`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

from efsstate import (
    Checkpoint,
    EfsStateError,
    Model,
    activate,
    checkpoint,
    invocation,
    model,
    models,
    prune,
    publish,
    sweep,
    versions,
)


class Row:
    id: int
    amount: int


def rows_after(position: int | None) -> Iterator[Row]:
    yield Row()


def load_network(files: Any) -> list[float]:
    return [float(len(str(files)))]


classify = model("resnet50", load=load_network)
assert_type(classify, Model[list[float]])
assert_type(classify(), list[float])
assert_type(classify.version, str | None)


@model("words")
def words(files: Any) -> dict[str, int]:
    return {str(files): 1}


assert_type(words(), dict[str, int])
model("x", load=5)  # error
model("x", load_network)
model("x", load=load_network, check_every=[])  # error


@invocation
def handler(event: dict[str, str], context: object) -> dict[str, bool]:
    with checkpoint(f"import/{event['date']}", context=context) as job:
        for row in job.resume(rows_after):
            assert_type(row, Row)
            job.state = (job.state or 0) + row.amount
        for row in job.resume([Row()], position=lambda row: row.id):
            assert_type(row, Row)
        for number in job.resume(range(3)):
            assert_type(number, int)
    assert_type(job.finished, bool)
    return {"finished": job.finished}


@invocation
def untyped(event: dict[str, Any], context: Any) -> dict[str, bool]:
    with invocation(context), invocation(None), invocation(seconds=3):
        return handler(event, context)


assert_type(untyped({}, None), dict[str, bool])
invocation(5)  # error


class Context:
    def get_remaining_time_in_millis(self) -> int:
        return 5


with invocation(Context()):
    pass


def shard_work() -> None:
    job = checkpoint("big")
    for shard in job.shards(4):
        assert_type(shard.index, int)
        with shard:
            shard.finish({"rows": shard.index})


typed: Checkpoint[dict[str, int]] = checkpoint("typed")
typed.load()
checkpoint("x", ttl=[])  # error
checkpoint()  # error

version = publish("resnet50", Path("/tmp/model"))
assert_type(version, str)
assert_type(publish("llm", hub="org/name@main", meta={"f1": 0.9}), str)
activate("resnet50", version)
for listed in versions("resnet50"):
    print(listed)
for name in models():
    print(name)
prune("resnet50", keep=2)
sweep(dry_run=True)
publish(5, "x")  # error

try:
    activate("resnet50", "nothing")
except EfsStateError as error:
    print(error)
