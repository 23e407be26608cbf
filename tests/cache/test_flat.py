"""What an operation costs does not depend on how many entries there are."""

import shutil

import pytest

from benchmarks import flat


@pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed: apt-get install strace"
)
def test_system_calls_do_not_depend_on_the_number_of_entries(tmp_path):
    """Hit put and miss make the same system calls among 1000 and 20000 entries."""
    few, many = (flat.system_calls(f"{tmp_path}/{count}", count) for count in (1_000, 20_000))
    assert few == many and set(few) == {"hit", "put", "miss"}
    assert few["hit"].keys() >= {"openat", "close"} and "getdents64" not in few["miss"] | few["put"]
