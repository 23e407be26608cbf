"""efsstate.testing for unit tests: docs/testing.md runs, and each tool keeps what it promises."""

import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

import efsstate
from efsstate import Cache, cached, checkpoint
from efsstate.testing import clock, disabled, isolated

TEXT = (pathlib.Path(__file__).parents[2] / "docs" / "testing.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
calls = []


@cached(name="counted", ttl="1h")
def counted(x):
    calls.append(x)
    return x


@pytest.fixture(autouse=True)
def nothing_called():
    calls.clear()


def run_pytest(folder, *options):
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, folder],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(efsstate.__file__))},
        capture_output=True,
        text=True,
    )


def test_every_block_of_the_page_runs(tmp_path):
    """In order; those for pytest in a run of pytest, where the plugin has its fixtures."""
    conftest = [block for block in BLOCKS if "autouse" in block]
    tests = [block for block in BLOCKS if "def test_" in block]
    plain = [block for block in BLOCKS if block not in conftest + tests]
    assert (len(conftest), len(tests), len(plain)) == (1, 1, 4)
    space = {"__name__": "documented"}
    for block in plain:
        exec(compile(block, "docs/testing.md", "exec"), space)
    (tmp_path / "conftest.py").write_text(conftest[0])
    (tmp_path / "test_price.py").write_text(plain[0] + tests[0])
    done = run_pytest(tmp_path, "-p", "efsstate.testing.plugin")
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_isolated_shares_nothing_with_before_and_after(root):
    counted(1), counted(1)
    with checkpoint("job") as job:
        job.save()
    with isolated() as inside:
        assert inside != str(root) and os.environ["EFSSTATE_ROOT"] == inside
        assert counted.cache_info()[:2] == (0, 0)
        counted(1), counted(1)
        assert counted.cache_info()[:2] == (1, 1) and calls == [1, 1]
        assert checkpoint("job").load("none") == "none"
        Cache("box").set("k", 1)
        assert set(os.listdir(inside)) == {"cache"}
    assert os.environ["EFSSTATE_ROOT"] == str(root) and not os.path.exists(inside)
    counted(1)
    assert calls == [1, 1] and counted.cache_info()[:2] == (1, 0) and Cache("box").get("k") is None


def test_isolated_in_a_folder_that_was_given_and_inside_of_another(tmp_path):
    with isolated(tmp_path / "new") as outer:
        counted(1)
        with isolated():
            counted(1)
        counted(1)
        assert calls == [1, 1] and outer == str(tmp_path / "new")
    assert os.listdir(outer)


def test_isolated_ends_with_an_error_too(root):
    with pytest.raises(KeyError), isolated():
        raise KeyError
    assert os.environ["EFSSTATE_ROOT"] == str(root)


def test_disabled_makes_plain_calls_and_ends(root):
    counted(1)
    with disabled():
        counted(1), counted(1)
        Cache("box").set("k", 1)
        with isolated():  # which is about keeping things
            counted(1), counted(1)
    assert calls == [1] * 4 and "EFSSTATE_DISABLE" not in os.environ
    counted(1)
    assert calls == [1] * 4 and Cache("box").get("k") is None


@pytest.mark.parametrize("memory", [0, None])
def test_time_that_was_let_pass_survives_a_put(memory):
    """Each new file shows the true time of the server."""
    f = cached(name="timed", ttl="1h", memory=memory)(counted.__wrapped__)
    real = time.time()
    f(1)
    with clock.advance("50m"):
        f(1), f(2)
        assert calls == [1, 2] and time.time() > real + 2999
        with clock.advance("20m"):
            f(2), f(1), f(3), f(1), f(2)
            assert calls == [1, 2, 1, 3]
    assert abs(time.time() - real) < 60
    f(3)  # from the future, as it looks now: not to be trusted
    clock.advance("2d")
    clock.advance("1d")
    f(3)
    clock.reset()
    assert calls == [1, 2, 1, 3, 3, 3] and abs(time.time() - real) < 60
    with pytest.raises(ValueError, match="advance"):
        clock.advance(-1)


def test_the_plugin_is_no_part_of_the_package():
    """Nothing but pytest imports it, so efsstate works without pytest."""
    code = "import sys, efsstate.testing; assert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
