"""What an operation costs does not depend on how many entries there are."""

import shutil

import pytest

from benchmarks import flat


@pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed: apt-get install strace"
)
def test_hit_put_and_miss_make_the_same_system_calls_among_1000_and_20000_entries(tmp_path):
    few, many = (flat.system_calls(f"{tmp_path}/{count}", count) for count in (1_000, 20_000))
    assert few == many and set(few) == {"hit", "put", "miss"}
    assert few["hit"].keys() >= {"openat", "close"} and "getdents64" not in few["miss"] | few["put"]
