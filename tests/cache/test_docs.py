"""docs/cache.md: every example runs, in order, and the options it names are there."""

import inspect
import pathlib
import re

from efsstate import Cache, cached

TEXT = (pathlib.Path(__file__).parents[2] / "docs" / "cache.md").read_text()


def test_every_example_runs():
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    assert len(blocks) >= 5
    space = {"__name__": "documented"}
    for block in blocks:
        exec(compile(block, "docs/cache.md", "exec"), space)


def test_every_option_is_documented():
    options = {*inspect.signature(cached).parameters, *inspect.signature(Cache).parameters} - {"function", "codec"}
    assert not [name for name in options if f"`{name}" not in TEXT]
    info = cached(lambda x: x).cache_info()
    assert not [name for name in info._fields if name not in TEXT]
