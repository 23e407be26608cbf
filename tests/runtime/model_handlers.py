"""Handlers that serve a model: what test_models.py runs under the real runtime client."""

import os
import time

from efsstate import invocation, model


def load(files):
    data = files.read()
    assert len(set(data)) == 1  # a version is one byte, repeated: half of another would show
    return {"version": chr(data[0]), "bytes": len(data), "where": files.path}


get = model("m", load, check_every=0.05)
staged = model("m", load, stage=True)


@invocation
def serve(event, context):
    return get() | {"pid": os.getpid()}


@invocation
def serve_staged(event, context):
    return staged() | {
        "pid": os.getpid(),
        "copies": len(
            [
                n
                for n in os.listdir(os.path.dirname(os.path.dirname(staged()["where"])))
                if n not in ("uses", "LOCK")
            ]
        ),
    }


@invocation
def serve_and_stay(event, context):
    """Stay busy for a while: calls at once then get an environment each."""
    answer = get() | {"environment": os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]}
    time.sleep(event["seconds"])
    return answer
