"""Raise an exception at each moment of a call, as a signal handler may: at each event in turn."""

import gc
import os
import sys
import time
import traceback
import warnings

ALL = 10**9  # moments
HERE = os.path.dirname(sys.modules["efsstate"].__file__) if "efsstate" in sys.modules else ""


class Alarm(Exception):  # noqa: N818 - as a user's handler would name it
    """Raised by the handler."""


def _is_skipped(frame):
    # No handler runs in the middle of a destructor in these tests: the interpreter would only
    # print the exception.
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


class Late(TimeoutError):  # noqa: N818
    """Raised by the handler of a time limit: an OSError, as the mount's errors are."""


def at_each_moment(act, files=os.sep + "efsstate" + os.sep, kind=Alarm, most=ALL):
    """Yield the number of each moment of `act` in `files`, after an alarm was raised there.

    Of more than `most` moments, take about `most`, evenly spaced.
    """
    gc.collect()
    gc.freeze()  # the collections below look at new objects alone: other tests have left millions
    try:
        yield from _moments(act, files, kind, most)
    finally:
        gc.unfreeze()


def _moments(act, files, kind, most):
    moment, every = (0, 1) if most == ALL else (-1, 0)  # at first without an alarm, to count
    while True:
        seen, is_raised = 0, False

        def profile(frame, event, _argument):
            nonlocal seen, is_raised
            if is_raised or files not in frame.f_code.co_filename or _is_skipped(frame):
                return
            # A handler runs at the end of a call of C code, and as a function begins.
            if event in ("c_return", "call"):
                if seen == moment:
                    is_raised = True
                    raise kind
                seen += 1

        gc.collect()
        sys.setprofile(profile)
        try:
            act()
        except kind:
            pass
        finally:
            sys.setprofile(None)
        gc.collect()
        if every and not is_raised:
            return
        if every:
            yield moment
        moment += every or 1
        every = every or max(1, seen // most)


def succeeds_in_child(act):
    """Return True if `act` ends without an error in a child, within 100 s.

    Threads that an alarm cuts off as they are started stay for ever: so they end with the child.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that threads are running
        child = os.fork()
    if not child:
        code = 1
        try:
            act()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    until = time.monotonic() + 100
    while time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False
