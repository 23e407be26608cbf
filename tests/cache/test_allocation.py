"""A hit takes its memory from the heap: it maps none, and the kernel provides no page for it."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, sys
from efsstate import cached

@cached(name="page", memory=0, root=sys.argv[1])
def page(number):
    return "x" * int(sys.argv[2])

if sys.argv[3] == "compute":
    page(1)
    sys.exit()
# The heap has no hole and no end to spare, as in a process that has done little else: a buffer
# makes it grow once, or is mapped by itself each time.
kept = [bytes(size) for size in (120_000, 60_000, 30_000) for _ in range(100)]
ctypes.CDLL(None).malloc_trim(0)
for _ in range(50):
    page(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(1000):
    page(1)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
assert page.cache_info().mount == 1050
print(faults)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc's allocator")
@pytest.mark.parametrize("size", [100, 1024, 16384, 49152])
def test_a_hit_has_no_page_fault(tmp_path, size):
    """A buffer of 128 KiB was mapped and unmapped at each hit, with two faults.

    glibc's threshold is fixed at its default, 128 KiB: else it grows with the first larger block
    that is freed, as by an import of numpy.
    """
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(size)]
    subprocess.run([*command, "compute"], check=True)
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    done = subprocess.run(
        [*command, "hit"], check=True, capture_output=True, text=True, env=environment
    )
    assert int(done.stdout) < 500, f"{done.stdout} faults in 1,000 hits"
