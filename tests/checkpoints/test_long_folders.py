"""A load of a folder whose listing may come in parts: it needs two that agree, one of them old."""

import pytest

from efsstate import ClaimLost, checkpoint
from efsstate.mount.files import Mount

KEEP = 20  # more saves than names that are taken as one reply


@pytest.fixture
def listings(monkeypatch):
    """Return the names that listings give instead of the true ones, and count the listings."""
    planted, names = [], Mount.names

    def listed(self, folder):
        listed.count += 1
        return planted.pop(0) if planted else names(self, folder)

    listed.count = 0
    monkeypatch.setattr(Mount, "names", listed)
    return planted, listed


def test_a_load_of_what_it_knows_lists_a_long_folder_once(root, listings):
    _, listed = listings
    with checkpoint("job", keep=KEEP, root=root) as job:
        for number in range(KEEP):
            job.save(number)
        for _ in range(3):  # the first one compares with what the client remembers
            listed.count = 0
            assert checkpoint("job", root=root).load() == KEEP - 1
            assert listed.count == 1
        job.save("new")
        for expected in (2, 1):
            listed.count = 0
            assert checkpoint("job", root=root).load() == "new"
            assert listed.count == expected


@pytest.mark.parametrize("has_loaded", [False, True])
def test_a_torn_listing_shows_no_lost_save(root, listings, has_loaded):
    """A claim comes after the listing's first part, and a late save of the one before in the last.

    The save is not acknowledged, and the new claim did not start from it.
    """
    planted, _ = listings
    old = checkpoint("job", keep=KEEP, root=root)
    with old:
        for number in range(KEEP):
            old.save(number)
        if has_loaded:
            assert checkpoint("job", root=root).load() == KEEP - 1
        mount, folder = Mount(str(root)), "checkpoints/job"
        first_part = [name for name in mount.names(folder) if name[0] in "be"]
        old.break_claim()
        with pytest.raises(ClaimLost):
            old.save("late")
    last_part = [name for name in mount.names(folder) if name[0] not in "be"]
    planted.append(first_part + last_part)
    assert checkpoint("job", root=root).load() == KEEP - 1
    assert not planted


@pytest.mark.parametrize("old", ["before the claim", "with the late save", "nothing"])
def test_an_old_listing_proves_only_what_the_new_one_has(root, listings, monkeypatch, old):
    """What a client remembers may be of any time, and may be torn itself."""
    planted, _ = listings
    job = checkpoint("job", keep=KEEP, root=root)
    with job:
        for number in range(KEEP):
            job.save(number)
        mount, folder = Mount(str(root)), "checkpoints/job"
        before = mount.names(folder)
        job.break_claim()
        with pytest.raises(ClaimLost):
            job.save("late")
    now = mount.names(folder)
    torn = [name for name in before if name[0] in "be"] + [
        name for name in now if name[0] not in "be"
    ]
    remembered = {"before the claim": before, "with the late save": torn, "nothing": None}[old]
    monkeypatch.setattr(Mount, "names_of_some_time_ago", lambda *_: remembered)
    if old != "with the late save":  # a new listing after that has the claim
        planted.append(torn)
    assert checkpoint("job", root=root).load() == KEEP - 1
    assert not planted
