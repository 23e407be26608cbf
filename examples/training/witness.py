"""The same handlers with faults on demand, so that the demo can kill them where it hurts."""

import os
import signal

import train

learn = train.learn


def dying(event, context):
    """Train, but be killed after a number of pages, as by a timeout."""
    left = event["pages"]

    def learn_and_die(*arguments):
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return learn(*arguments)

    train.learn = learn_and_die
    return train.handler(event, context)
