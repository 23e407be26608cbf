"""Count the Python calls of our own functions in an operation: exact, on any machine."""

import os
import sys
import threading

import efsstate

SOURCE = os.path.dirname(efsstate.__file__) + os.sep


class Calls:
    """The calls that were made while this was entered, as `path:function` in their order."""

    def __init__(self):
        self.names = []

    def _profile(self, frame, event, _argument):
        if event == "call" and frame.f_code.co_filename.startswith(SOURCE):
            path = frame.f_code.co_filename.removeprefix(SOURCE)
            self.names.append(f"{path}:{frame.f_code.co_qualname}")

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
