"""The protocol of parts, explored in every order of its steps; and each of its rules, broken."""

import pytest
from tests.datasets.explorer import World, explore

from efsstate.datasets import protocol
from efsstate.datasets.protocol import PartFolders
from efsstate.format import dataset_layout as names

WORLDS = [
    {"writers": 2},
    {"writers": 3},
    {"writers": 2, "removers": 1},
    {"writers": 1, "removers": 2},
    {"writers": 2, "swept": 2},
    {"writers": 2, "removers": 1, "swept": 2},
]


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_no_order_of_steps_breaks_a_promise(world):
    """Each key has one part, an acknowledged part is there, a removed key never comes back."""
    states, wrong = explore(World(**world))
    assert wrong is None
    assert states > 50


@pytest.mark.slow
def test_three_writers_a_removal_and_the_sweep():
    """The same with as many actors as memory allows."""
    states, wrong = explore(World(writers=3, removers=1), limit=10_000_000)
    assert wrong is None
    assert states > 100_000


def without_a_claim(monkeypatch):
    monkeypatch.setattr(PartFolders, "_claim", lambda self, key, slot, claim: claim)


def without_a_mark(monkeypatch):
    monkeypatch.setattr(PartFolders, "_mark_gone", lambda self, key: None)


def with_the_mark_last(monkeypatch):
    mark, remove = PartFolders._mark_gone, PartFolders.remove

    def late(self, key, part=""):
        monkeypatch.setattr(PartFolders, "_mark_gone", lambda self, key: None)
        try:
            was_there = remove(self, key, part)
        finally:
            monkeypatch.setattr(PartFolders, "_mark_gone", mark)
        self._mark_gone(key)
        return was_there

    monkeypatch.setattr(PartFolders, "remove", late)


def with_dead_claims_removed(monkeypatch):
    settle = PartFolders._settle

    def remove_it(self, key, claim):
        outcome = settle(self, key, claim)
        if outcome is protocol._DEAD:
            self.mount.remove(self.keys, names.claim_name(key, 0))
        return outcome

    monkeypatch.setattr(PartFolders, "_settle", remove_it)
    monkeypatch.setattr(names, "claim_name", lambda key, slot: key)


def without_a_second_look(monkeypatch):
    def settle(self, key, claim):
        if not claim.is_block and self.is_visible(claim.part):
            return protocol.PRESENT
        if self.is_gone(key):
            return protocol.REMOVED
        if not claim.is_block and self._reveal(claim):
            return protocol.PRESENT
        return protocol._DEAD

    monkeypatch.setattr(PartFolders, "_settle", settle)


def without_asking_the_server(monkeypatch):
    monkeypatch.setattr(
        PartFolders, "is_visible", lambda self, part: self._exists(self.parts, part)
    )


def with_a_blind_acknowledgement(monkeypatch):
    monkeypatch.setattr(PartFolders, "_explain", lambda self, key, claim: protocol.ADDED)


def without_a_block(monkeypatch):
    monkeypatch.setattr(PartFolders, "_block", lambda self, key, slot: True)
    monkeypatch.setattr(
        PartFolders, "_settle", lambda self, key, claim: settle_unmarked(self, claim)
    )


def settle_unmarked(folders, claim):
    if not claim.is_block and (folders.is_visible(claim.part) or folders._reveal(claim)):
        return protocol.PRESENT
    return protocol._DEAD


def without_the_staged_file_going(monkeypatch):
    monkeypatch.setattr(
        PartFolders, "_unlink", lambda self, claim: self.mount.remove(self.parts, claim.part)
    )


BROKEN = [
    (without_a_claim, {"writers": 2}),
    (with_the_mark_last, {"writers": 2, "removers": 1}),
    (with_dead_claims_removed, {"writers": 3, "swept": 1}),
    (without_a_second_look, {"writers": 2}),
    (without_asking_the_server, {"writers": 2}),
    (with_a_blind_acknowledgement, {"writers": 2, "swept": 2}),
    (without_a_block, {"writers": 2, "removers": 1}),
    (without_the_staged_file_going, {"writers": 1, "removers": 1}),
    (without_a_mark, {"writers": 2, "removers": 1}),
]


@pytest.mark.parametrize(
    ("rule", "world"), BROKEN, ids=lambda value: getattr(value, "__name__", "")
)
def test_without_a_rule_the_search_finds_a_violation(rule, world, monkeypatch):
    """Each rule of the protocol is needed."""
    rule(monkeypatch)
    _, wrong = explore(World(**world))
    assert wrong is not None
