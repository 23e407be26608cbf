"""Damaged, torn, forged and foreign files: a step back with a warning, or a clear error.

Never a wrong state.
"""

import os
import socket

import pytest

from efsstate import CorruptEntryError, SignatureError, UnknownFormatError, checkpoint
from efsstate.checkpoints import newest, saves
from efsstate.checkpoints.protocol import CheckpointFolder
from efsstate.format import layout
from efsstate.mount.files import Mount


def saved(root, *states, name="job", **options):
    with checkpoint(name, root=root, **options) as job:
        for state in states:
            job.save(state)


def flip(path, at=-1):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


def hole(path):
    path.write_bytes(bytes(path.stat().st_size))


def becomes_a_folder(path):
    path.unlink()
    path.mkdir()


def becomes_a_link(path):
    path.unlink()
    path.symlink_to("/etc/passwd")


def becomes_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def becomes_a_socket(path):
    path.unlink()
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


DAMAGES = [
    flip,
    cut,
    empty,
    hole,
    becomes_a_folder,
    becomes_a_link,
    becomes_a_pipe,
    becomes_a_socket,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_load_steps_back_with_a_warning_and_a_claim_refuses(root, folder, warned, damage):
    saved(root, 1, 2, 3)
    damage(folder("job").saves()[0])
    assert checkpoint("job", root=root).load() == 2
    assert any("passed over" in line for line in warned())
    with pytest.raises(CorruptEntryError), checkpoint("job", root=root):
        pass
    job = checkpoint("job", root=root)
    assert job.load() == 2 and job.unsettled  # a refused claim decides nothing
    with checkpoint("job", root=root, accept_older=True) as job:
        assert job.state == 2
        job.save(4)
    assert checkpoint("job", root=root).load() == 4


def test_every_single_bit_counts(root, folder):
    saved(root, 1, 2)
    newest = folder("job").saves()[0]
    data = newest.read_bytes()
    for at in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            newest.write_bytes(changed)
            try:
                assert checkpoint("job", root=root).load() == 1
            except UnknownFormatError:
                assert at == 4  # the format's own number


def test_where_all_are_damaged_nothing_is_made_up(root, folder):
    saved(root, 1, 2, 3)
    for path in folder("job").saves():
        flip(path)
    for use in (checkpoint("job", root=root).load, checkpoint("job", root=root).__enter__):
        with pytest.raises(CorruptEntryError):
            use()
    with checkpoint("job", root=root, accept_older=True) as job:
        assert job.state is None
        job.save(1)
    assert checkpoint("job", root=root).load() == 1


def test_reset_is_a_way_out_of_damage(root, folder):
    saved(root, 1)
    flip(folder("job").saves()[0])
    checkpoint("job", root=root).reset()
    assert checkpoint("job", root=root).load("none") == "none"


def test_damage_under_the_holder_heals_with_its_next_save(root, folder):
    with checkpoint("job", root=root) as job:
        job.save(1)
        job.save(2)
        flip(folder("job").saves()[0])
        job.save(3)
    with checkpoint("job", root=root) as job:
        assert job.state == 3


def test_a_save_that_was_removed_though_a_claim_started(root, folder):
    """A save that was removed though a claim started from it is missed."""
    saved(root, 1)
    with checkpoint("job", root=root):
        pass
    folder("job").saves()[0].unlink()
    with pytest.raises(CorruptEntryError, match="removed"):
        checkpoint("job", root=root).load()


def test_a_newer_format_is_never_passed_over(root, folder):
    saved(root, 1, 2)
    path = folder("job").saves()[0]
    data = bytearray(path.read_bytes())
    data[4] = 9
    path.write_bytes(data)
    for use in (checkpoint("job", root=root).load, checkpoint("job", root=root).__enter__):
        with pytest.raises(UnknownFormatError):
            use()
    assert path.read_bytes() == data


def test_a_save_copied_to_another_name_or_checkpoint_says(root, folder):
    """A save copied to another name or checkpoint says nothing."""
    saved(root, "mine", "mine 2")
    saved(root, "theirs", name="other")
    path = folder("job").saves()[0]
    path.write_bytes(folder("other").saves()[0].read_bytes())
    assert checkpoint("job", root=root).load() == "mine"
    path.write_bytes(folder("job").saves()[1].read_bytes())
    assert checkpoint("job", root=root).load() == "mine"


def test_strange_names_in_the_folder_are_left_alone(root, folder):
    saved(root, 1)
    strange = [
        "e",
        "b",
        "-",
        "1-",
        "-1",
        "e-1",
        "0-0",
        "e0",
        "1-0",
        "01-1",
        "1-01",
        "e01",
        "x1-2",
        "notes.txt",
        "9" * 30 + "-1",
        "e" + "9" * 50,
        "١-١",
    ]
    for name in strange:
        (folder("job").path / name).write_text("x")
    for number in range(30):  # noqa: B007
        checkpoint("job", root=root).update(lambda n: n + 1)
    assert checkpoint("job", root=root).load() == 31
    assert {path.name for path in folder("job").path.iterdir()} >= set(strange)


def test_a_temporary_of_a_dead_holder_goes_with_the_next_save(root, folder):
    saved(root, 1)
    (folder("job").path / f"{layout.TEMPORARY}dead").write_bytes(b"x" * 1000)
    saved(root, 2)
    assert not folder("job").temporaries()


# A key: who may write to the mount, but has no key, can neither forge nor redirect


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("EFSSTATE_SIGNING_KEY", "secret")


def test_what_is_unsigned_or_signed_with_another_key_is_refused(root, folder, monkeypatch, warned):
    monkeypatch.setenv("EFSSTATE_SIGNING_KEY", "theirs")
    saved(root, "theirs")
    monkeypatch.setenv("EFSSTATE_SIGNING_KEY", "mine")
    with pytest.raises(SignatureError):
        checkpoint("job", root=root).load()
    with pytest.raises(SignatureError):
        checkpoint("job", root=root).__enter__()


def test_a_forged_newer_save_is_passed_over_and_refuses(root, folder, key, monkeypatch, warned):
    """A forged newer save is passed over and refuses the claim."""
    saved(root, 1)
    mine = folder("job").saves()[0]
    epoch, number = mine.name.split("-")
    monkeypatch.delenv("EFSSTATE_SIGNING_KEY")
    saved(root, "forged", name="evil")
    monkeypatch.setenv("EFSSTATE_SIGNING_KEY", "secret")
    (folder("job").path / f"{epoch}-{int(number) + 1}").write_bytes(
        folder("evil").saves()[0].read_bytes()
    )
    assert checkpoint("job", root=root).load() == 1
    with pytest.raises(SignatureError):
        checkpoint("job", root=root).__enter__()


def test_an_unsigned_base_cannot_redirect_to_an_older_save(root, folder, key):
    saved(root, 1, 2)
    old = folder("job").saves()[1]
    here = folder("job").path
    top = max(int(path.name[1:]) for path in here.iterdir() if path.name[0] == "e")
    os.symlink("{} 00", here / layout.epoch_name(top + 1))
    os.symlink(f"{old.name} 00", here / layout.base_name(top + 1))
    with pytest.raises(SignatureError):
        checkpoint("job", root=root).load()


def test_an_unsigned_epoch_only_fences(root, folder, key):
    with checkpoint("job", root=root) as job:
        job.save(1)
        os.symlink("nobody", folder("job").path / layout.epoch_name(job.epoch + 5))
        from efsstate import ClaimLost

        with pytest.raises(ClaimLost):
            job.save(2)
    assert checkpoint("job", root=root).load() in (1, 2)
    with checkpoint("job", root=root) as job:
        job.save(3)
    assert checkpoint("job", root=root).load() == 3


# An epoch without a base: a claimant died in its claim


def claimed_and_died(root):
    """What a claimant leaves that dies between its epoch and its base."""
    folder = CheckpointFolder(Mount(root), layout.checkpoint_folder("job"))
    top = folder.list().top
    folder.make_link(layout.epoch_name(top + 1), "{}")
    return folder, top + 1


def test_a_load_decides_what_a_dead_claimant_left_open(root):
    saved(root, 1)
    folder, epoch = claimed_and_died(root)
    job = checkpoint("job", root=root)
    assert job.load() == 1 and not job.unsettled
    assert epoch in folder.list().bases


def test_a_load_that_cannot_write_says_that_it_is_unsettled(root, monkeypatch, warned):
    saved(root, 1)
    folder, epoch = claimed_and_died(root)
    monkeypatch.setattr(newest, "_PATIENCE", 0.2)

    def refused(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "symlink", refused)
    job = checkpoint("job", root=root)
    assert job.load() == 1 and job.unsettled
    assert any("not settled" in line for line in warned())
    assert epoch not in folder.list().bases


def test_a_save_of_a_fenced_holder_is_not_seen_after(root):
    """A save of a fenced holder is not seen after the base was made."""
    with checkpoint("job", root=root) as job:
        job.save(1)
        checkpoint("job", root=root).break_claim()
        from efsstate import ClaimLost

        with pytest.raises(ClaimLost):
            job.save(2)
        assert checkpoint("job", root=root).load() == 1
    with checkpoint("job", root=root) as job:
        assert job.state == 1


def test_an_alarm_in_a_decoder_is_no_damage(root, monkeypatch):
    """A handler's exception looks like it: a load would step back behind what was acknowledged."""
    with checkpoint("job", root=root) as job:
        job.save(1)
        job.save(2)
    real, rung = saves.unpack, []

    def unpack(mount, folder, key, stored):
        if not rung:
            rung.append(key)
            raise CorruptEntryError("x", "an alarm")
        return real(mount, folder, key, stored)

    monkeypatch.setattr(saves, "unpack", unpack)
    assert checkpoint("job", root=root).load() == 2 and rung
