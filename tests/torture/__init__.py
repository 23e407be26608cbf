"""The long tests: `python -m tests.torture`; a short form of each part is in test_short.py."""

import os

# A folder in memory for temporary files, if this machine has one: on a disk each fsync takes long.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Skip(Exception):  # noqa: N818 - it is no error
    """This machine has not what the part needs; the words say what."""
