"""Count the Python calls of our own functions in an operation: exact, on any machine."""

import os
import sys
import threading

import efsstate

SOURCE = os.path.dirname(efsstate.__file__) + os.sep


class Calls:
    """The calls that were made while this was entered, as `path:function` in their order.

    `steps` are the pairs (caller's file, callee's file) of calls from one file into another.
    """

    def __init__(self):
        self.names = []
        self.steps = set()

    def _profile(self, frame, event, _argument):
        if event == "call" and frame.f_code.co_filename.startswith(SOURCE):
            path = frame.f_code.co_filename.removeprefix(SOURCE)
            self.names.append(f"{path}:{frame.f_code.co_qualname}")
            caller = frame.f_back
            while caller and not caller.f_code.co_filename.startswith(SOURCE):
                caller = caller.f_back  # of another library, which calls back
            origin = caller and caller.f_code.co_filename.removeprefix(SOURCE)
            if origin and origin != path:
                self.steps.add((origin, path))

    def __enter__(self):
        threading.setprofile(self._profile)  # threads that the operation starts count too
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_error):
        sys.setprofile(None)
        threading.setprofile(None)

    def __len__(self):
        return len(self.names)

    @property
    def files(self):
        """The modules that a reader opens who follows the calls."""
        return sorted({name.split(":")[0] for name in self.names})

    @property
    def directors(self):
        """The modules that lead the reader on: they call into another one."""
        return sorted({origin for origin, _ in self.steps})
