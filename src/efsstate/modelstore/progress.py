"""How far a local copy had come when a deadline or a kill cut it off, so that the next continues.

`/tmp` outlives a timeout. The copy itself stays at `.tmp-<name>`, and beside it
`.tmp-<name>.progress` tells for each file up to which byte it is complete.
"""

from __future__ import annotations

import json
import threading
import time

from efsstate import process
from efsstate.errors import CorruptEntryError
from efsstate.format import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.mount.files import Mount

SUFFIX = ".progress"
_EVERY = 0.25  # seconds between notes: later bytes are copied again after a kill
_MOST = 16 << 20  # bytes of a progress file that is read


class Progress:
    """The progress of the copy `name` on the local mount."""

    def __init__(self, local: Mount, name: str) -> None:
        self._local, self._file = local, f"{layout.TEMPORARY}{name}{SUFFIX}"
        self._lock = threading.Lock()
        self._written = 0.0
        self._complete = self._read()

    def _read(self) -> dict[str, int]:
        try:
            data, _ = self._local.read_stat("", self._file, _MOST)
            noted = json.loads(bytes(data))
            return {str(file): int(offset) for file, offset in noted.items()}
        except (OSError, CorruptEntryError, ValueError, TypeError, AttributeError) as error:
            process.raise_of_handler(error)
            return {}

    def start(self, file: str) -> int:
        """Return up to which byte the file was complete; its bytes are still to be compared."""
        return max(0, self._complete.get(file, 0))

    def note(self, file: str, offset: int) -> None:
        """Note that the file is complete up to `offset`; now and then that is written."""
        with self._lock:
            self._complete[file] = offset
            if time.monotonic() - self._written >= _EVERY:
                self._write()

    def save(self) -> None:
        """Write the notes."""
        with self._lock:
            self._write()

    def _write(self) -> None:
        text = json.dumps(self._complete).encode()
        self._local.replace("", self._file, lambda _: (text,))
        self._written = time.monotonic()

    def remove(self) -> None:
        """Remove the notes: the copy is complete, or given up."""
        self._local.remove("", self._file, quiet=True)
