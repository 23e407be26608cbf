"""The batch job: a Lambda handler that reads every image in a folder, over as many invocations as it takes."""

import os

import app
from efsstate import checkpoint


def handler(event, context):
    """Step Functions calls it again while `finished` is false."""
    folder = event["folder"]
    names = sorted(os.listdir(folder))
    done, before = [], app.computed
    with checkpoint(f"texts/{event['job']}", context=context) as job:
        remaining = lambda last: [name for name in names if last is None or name > last]
        for name in job.resume(remaining, every=1, position=lambda name: name):
            with open(os.path.join(folder, name), "rb") as file:
                lines = app.text_of(file.read())
            job.state = {**(job.state or {}), name: lines}
            done.append(name)
    return {"finished": job.finished, "done": done, "computed": app.computed - before, "texts": job.state}
