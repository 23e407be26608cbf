"""A load of a folder whose listing may come in parts: two listings once, and then one."""

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
        for expected in (2, 1, 1):
            listed.count = 0
            assert checkpoint("job", root=root).load() == KEEP - 1
            assert listed.count == expected
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
