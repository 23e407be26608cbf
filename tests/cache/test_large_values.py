"""Values of more than 4 GiB, which no length of 32 bits holds, in another process, too."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.heavy
SIZE = 2**32 + 9
NEEDED = 14 * 2**30  # the file in memory, its copy as the result, and what encodes it
VALUES = {
    "bytes": ("(bytes(SIZE), 'end')", "(len(v[0]), v[0][-9:], v[1]) == (SIZE, bytes(9), 'end')"),
    "array": ("marked(np.zeros(SIZE, 'u1'))", "v.shape == (SIZE,) and v[0] == 0 and v[-1] == 7"),
}  # fmt: skip
PROGRAM = """
import sys
import numpy as np
from efsstate import cached
SIZE = {size}

def marked(array):
    array[-1] = 7
    return array

def make():
    print("computes")
    return {value}

v = cached(make, name="large", memory=0, on_unstored="raise", root=sys.argv[1])()
print({check})
"""


def available():
    """Return the bytes of memory that are free for a program."""
    with open("/proc/meminfo") as file:
        fields = dict(line.split(":") for line in file)
    return int(fields["MemAvailable"].split()[0]) * 1024


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_of_more_than_4_gib_is_kept(kind, tmp_path):
    disk = os.statvfs(tmp_path)
    if available() < NEEDED or disk.f_bavail * disk.f_frsize < 2 * SIZE:
        pytest.skip("less than 14 GiB of memory, or 8 GiB of disk, are free")
    value, check = VALUES[kind]
    program = PROGRAM.format(size=SIZE, value=value, check=check)
    command = [sys.executable, "-c", program, str(tmp_path)]
    try:
        runs = [
            subprocess.run(command, capture_output=True, text=True, timeout=600) for _ in range(2)
        ]
    finally:
        for folder, _, names in os.walk(tmp_path):
            for name in names:
                os.unlink(os.path.join(folder, name))  # 4 GiB are not for pytest to keep
    assert [run.stdout for run in runs] == ["computes\nTrue\n", "True\n"], runs
