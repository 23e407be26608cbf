"""Handlers whose metrics test_runtime.py adds up; every invocation says what it did."""

import time

from efsstate import cached, checkpoint, invocation, metrics

metrics.emf(namespace="Test")
calls = {"hits": 0, "misses": 0, "saves": 0}


@cached(ttl="1h")
def square(number):
    calls["misses"] += 1
    return number * number


@invocation
def handler(event, context):
    before = dict(calls)
    for number in event["numbers"]:
        misses = calls["misses"]
        square(number)
        calls["hits"] += calls["misses"] == misses
    if event.get("save"):
        with checkpoint(event["save"], context=context) as job:
            job.save(1)
            calls["saves"] += 1
    if event.get("sleep"):
        time.sleep(event["sleep"])
    return {name: calls[name] - before[name] for name in calls}


@cached(name="unstorable")
def unstorable():
    return object()


@cached(name="broken", root="/dev/null/below")
def broken():
    return 1


@invocation
def complaining(event, context):
    """Do what is forgiven, but logged."""
    unstorable()
    broken()
    return {"request": context.aws_request_id}
