"""The handlers that the state machine calls."""

import jobs

from efsstate import workers


def totals(job):
    return {"total": jobs.collect(job)}


handler = workers.handler(jobs.work, collect=totals)
