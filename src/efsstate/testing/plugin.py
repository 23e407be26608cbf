"""A pytest plugin with fixtures for tests of cached functions.

It is there once efsstate is installed; `-p efsstate.testing.plugin` loads it by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from efsstate.testing._unit import Clock, clock, disabled, isolated


@pytest.fixture
def efsstate_root(tmp_path: Path) -> Iterator[Path]:
    """Give the test a fresh root, empty memory and counters at zero; its path."""
    with isolated(tmp_path / "efsstate") as path:
        yield Path(path)


@pytest.fixture
def efsstate_disabled() -> Iterator[None]:
    """Make plain calls of all cached functions."""
    with disabled():
        yield


@pytest.fixture
def efsstate_clock() -> Iterator[Clock]:
    """Give the test a clock: `efsstate_clock.advance("8d")` lets eight days pass for it."""
    try:
        yield clock
    finally:
        clock.reset()
