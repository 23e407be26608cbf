"""The janitor and ops under the real Lambda runtime client: its deadline, and JSON replies."""

import os

import pytest

import efsstate
from efsstate.testing import Function

from .conftest import DAY

pytestmark = pytest.mark.runtime
SOURCE = os.path.dirname(os.path.dirname(efsstate.__file__))


def function(tree, handler, **options):
    return Function(handler, path=SOURCE, environment={"EFSSTATE_ROOT": tree.path}, **options)


def test_the_janitor_sweeps_and_says_so(tree):
    tree.policy("f", shortest=90 * DAY)
    for i in range(50):
        tree.entry("f", i, age=40 * DAY, unused=40 * DAY if i % 2 else 0)
    with function(tree, "efsstate.janitor.handler", timeout=30) as janitor:
        result = janitor.invoke({})
        assert (
            result.error is None
            and result.value["finished"]
            and result.value["reasons"] == {"unused": 25}
        )
        assert janitor.invoke({"unused_four": 1}).error is not None
    assert tree.entries("f") == 25


def test_ops_answers_with_the_commands_document(tree):
    tree.entry("f", 1, age=DAY)
    with function(tree, "efsstate.ops.handler", timeout=30) as ops:
        result = ops.invoke({"argv": ["stat"]})
        assert (
            result.error is None
            and result.value["schema"] == "efsstate.stat"
            and result.value["exit"] == 0
        )
        assert ops.invoke({"argv": ["rm", "cache/f"]}).value["exit"] == 2
        assert ops.invoke({"argv": ["rm", "cache/f", "-y"]}).value["removed"] == 1
