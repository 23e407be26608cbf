"""The batch job: a handler that reads every image in a folder, in as many calls as it takes."""

import os

from app import text_of

from efsstate import checkpoint


def handler(event, context):
    """Step Functions calls it again while `finished` is false."""
    folder, done = event["folder"], []
    names = sorted(os.listdir(folder))

    def names_after(last):
        return [name for name in names if last is None or name > last]

    with checkpoint(f"texts/{event['job']}", context=context) as job:
        for name in job.resume(names_after, every=1, position=lambda name: name):
            with open(os.path.join(folder, name), "rb") as file:
                lines = text_of(file.read())
            job.state = {**(job.state or {}), name: lines}
            done.append(name)
    return {"finished": job.finished, "done": done, "texts": job.state}
