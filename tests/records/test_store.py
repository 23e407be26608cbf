"""Records: the compare-and-set, values, windows, damage, and the sweep."""

import errno
import os
import pathlib
import time

import pytest

from efsstate import on_event, sweep
from efsstate.errors import ClaimLost, CorruptEntryError, EfsStateError, SignatureError
from efsstate.format import record_layout
from efsstate.mount import clock
from efsstate.mount.files import Mount
from efsstate.records import retention
from efsstate.records.revision import CLAIMED, CLOSED, DONE, FREED, Content, parse
from efsstate.records.store import RecordChanged, RecordStore

DAY = 86_400


def claim(seconds=60, lease=60.0):
    now = time.time()
    return Content(CLAIMED, int(now + seconds), lease=int((now + lease) * 1000))


def done(value, seconds=60):
    return Content(DONE, int(time.time() + seconds), value=value)


def links(root):
    return sorted(p for p in pathlib.Path(root, "records").rglob("*") if p.is_symlink())


def revisions(root):
    return [p for p in links(root) if record_layout.is_revision(p.name)]


def test_a_claim_a_result_and_a_duplicate(store, root):
    claimed = store.claim("a", claim())
    store.append(claimed, done("result"))
    with pytest.raises(RecordChanged) as changed:
        store.claim("a", claim())
    assert changed.value.revision.state == DONE
    assert store.value(changed.value.revision) == "result"
    assert store.value(RecordStore(Mount(root), "orders", DAY).read("a")) == "result"
    assert store.read("b") is None


def test_a_late_run_changes_nothing(store):
    late = store.claim("a", claim(lease=-1))
    store.append(store.claim("a", claim()), done("successor's"))
    with pytest.raises(ClaimLost, match=r"another run took the record over, which is done now"):
        store.append(late, done("late"))
    with pytest.raises(ClaimLost):
        store.append(late, Content(FREED))
    assert store.value(store.read("a")) == "successor's"


def test_a_late_run_does_not_end_its_successors_claim(store):
    late = store.claim("a", claim(lease=-1))
    successor = store.claim("a", claim())
    for content in (done("late"), Content(FREED)):
        with pytest.raises(ClaimLost):
            store.finish("a", late, content)
    store.finish("a", successor, done("successor's"))
    assert store.value(store.read("a")) == "successor's"


def test_a_freed_or_expired_record_is_claimed_again(store):
    for _ in range(3):
        store.append(store.claim("a", claim()), Content(FREED))
    store.append(store.claim("a", claim()), done("old", seconds=-5))
    assert store.claim("a", claim()).number == 9


def test_a_long_chain_is_searched_by_bisection(store, monkeypatch):
    for _ in range(40):
        store.append(store.claim("a", claim()), Content(FREED))
    looks = []
    find = Mount.find
    monkeypatch.setattr(Mount, "find", lambda *args: looks.append(args) or find(*args))
    assert store.read("a").number == 80
    assert len(looks) <= 16


@pytest.mark.parametrize("value", ["", "x" * 3000, "x" * 100_000, "ein\nÜ", "a/b " * 900])
def test_a_value_comes_back(store, root, value):
    store.append(store.claim("a", claim()), done(value))
    assert store.value(RecordStore(Mount(root), "orders", DAY).read("a")) == value


def test_a_link_that_holds_less_is_replaced_by_a_file(store, monkeypatch):
    symlink = os.symlink

    def short(text, *rest, **named):
        if len(text) > 1000:
            raise OSError(errno.ENAMETOOLONG, "too long")
        symlink(text, *rest, **named)

    monkeypatch.setattr(os, "symlink", short)
    store.append(store.claim("a", claim()), done("x" * 2000))
    assert store.value(store.read("a")) == "x" * 2000


def test_the_file_of_a_result_that_comes_too_late_goes(store, root):
    late = store.claim("a", claim(lease=-1))
    store.claim("a", claim())
    with pytest.raises(ClaimLost):
        store.append(late, done("x" * 5000))
    assert [p for p in pathlib.Path(root).rglob("*") if p.is_file() and not p.is_symlink()] == []


def test_a_lost_reply_is_no_loss(store, monkeypatch):
    symlink = os.symlink

    def done_though_it_failed(*args, **named):
        symlink(*args, **named)
        raise FileExistsError(errno.EEXIST, "the reply was lost")

    store.claim("another", claim())  # its window is entered
    monkeypatch.setattr(os, "symlink", done_though_it_failed)
    claimed = store.claim("a", claim())
    assert claimed.number == 1
    store.append(claimed, done("kept"))
    monkeypatch.undo()
    assert store.value(store.read("a")) == "kept"


def test_a_process_that_sleeps_through_its_claim_does_not_run(store, monkeypatch):
    put = RecordStore.put
    now = time.time

    def slow(self, *args):
        revision = put(self, *args)
        monkeypatch.setattr(time, "time", lambda: now() + 100)
        return revision

    monkeypatch.setattr(RecordStore, "put", slow)
    with pytest.raises(ClaimLost, match="over before it was made"):
        store.claim("a", claim(lease=5))
    monkeypatch.undo()
    assert store.read("a").state == FREED


# Windows


def test_a_result_of_the_earlier_window_is_respected(store, root, server):
    server.seconds = 12 * DAY - 1
    store.append(store.claim("a", claim()), done("yesterday's"))
    for process in (store, RecordStore(Mount(root), "orders", DAY)):
        server.seconds = 12 * DAY + 1
        with pytest.raises(RecordChanged) as changed:
            process.claim("a", claim())
        assert process.value(changed.value.revision) == "yesterday's"
        assert process.value(process.read("a")) == "yesterday's"


def test_a_run_near_a_windows_end_ends_in_the_next(store, root, server):
    server.seconds = 12 * DAY - 1
    claimed = store.claim("a", claim())
    server.seconds = 12 * DAY + 1
    other = RecordStore(Mount(root), "orders", DAY)
    with pytest.raises(RecordChanged) as changed:
        other.claim("a", claim())
    assert changed.value.revision.state == CLAIMED
    store.append(claimed, done("in time"))
    assert other.value(other.read("a")) == "in time"


def test_a_successor_in_the_next_window_fences_the_run(store, root, server):
    server.seconds = 12 * DAY - 1
    late = store.claim("a", claim(lease=-1))
    server.seconds = 12 * DAY + 1
    other = RecordStore(Mount(root), "orders", DAY)
    successor = other.claim("a", claim())
    assert successor.window.index == 12 and late.window.index == 11
    with pytest.raises(ClaimLost, match="which is closed now"):
        store.append(late, done("late"))
    other.append(successor, done("successor's"))
    assert other.value(store.read("a")) == "successor's"


def test_a_process_with_a_slow_clock_follows_into_the_window(store, root, server, monkeypatch):
    server.seconds = 12 * DAY - 1
    store.claim("other", claim())
    server.seconds = 12 * DAY + 1
    RecordStore(Mount(root), "orders", DAY).claim("a", claim())
    monkeypatch.setattr(clock, "now", lambda: 12 * DAY - 1)
    with pytest.raises(RecordChanged) as changed:
        store.claim("a", claim())
    assert changed.value.revision.window.index == 12
    # A claim that it makes in the window that is over is given back, and made in the present one.
    assert store.claim("b", claim()).window.index == 12


def test_a_process_with_a_fast_clock_waits_for_the_window(store, server, monkeypatch):
    server.seconds = 12 * DAY - 1
    monkeypatch.setattr(clock, "now", lambda: 12 * DAY + 1)
    assert store.claim("a", claim()).window.index == 11


def test_a_claim_in_a_window_that_is_over_is_made_again(store, root, server, monkeypatch):
    server.seconds = 12 * DAY - 1
    store.claim("other", claim())
    create = RecordStore._create

    def frozen(self, *args):
        server.seconds = 20 * DAY  # long after anybody looks into the window
        return create(self, *args)

    monkeypatch.setattr(RecordStore, "_create", frozen)
    assert store.claim("a", claim(30 * DAY, 30 * DAY)).window.index == 20


def test_a_result_after_the_look_back_is_refused(store, server):
    server.seconds = 12 * DAY - 1
    claimed = store.claim("a", claim())
    server.seconds = 20 * DAY
    with pytest.raises(ClaimLost, match="expired before the run ended"):
        store.append(claimed, done("late"))


def test_records_that_count_for_long_are_looked_for_as_long(store, root, server):
    server.seconds = 12 * DAY
    store.append(store.claim("a", claim(seconds=5 * DAY)), done("kept", seconds=5 * DAY))
    server.seconds = 16 * DAY + 1
    other = RecordStore(Mount(root), "orders", DAY)
    with pytest.raises(RecordChanged) as changed:
        other.claim("a", claim())
    assert other.value(changed.value.revision) == "kept"


def test_a_clock_that_jumps_is_an_error(store, server, monkeypatch):
    times = iter(range(100))
    monkeypatch.setattr(clock, "creation_time", lambda _: next(times) * 10.0 * DAY)
    with pytest.raises(EfsStateError, match="the server's clock jumps"):
        store.claim("a", claim())


# Damage


def test_damage_is_an_error_and_no_second_run(store, root):
    store.append(store.claim("a", claim()), done("result"))
    second = revisions(root)[1]
    text = os.readlink(second)
    second.unlink()
    second.symlink_to(text.replace("result", "forged"))
    with pytest.raises(CorruptEntryError, match="its checksum does not match"):
        store.claim("a", claim())
    second.unlink()
    second.write_text("a file")
    with pytest.raises(CorruptEntryError, match="where a link of ours belongs"):
        store.claim("a", claim())


def test_a_flipped_byte_of_a_value_is_an_error(store, root):
    store.append(store.claim("a", claim()), done("x" * 5000))
    (path,) = (p for p in pathlib.Path(root).rglob("*") if p.is_file() and not p.is_symlink())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptEntryError):
        store.value(store.read("a"))


def test_a_record_of_another_key_is_refused(root):
    store = RecordStore(Mount(root, key=b"k" * 32), "orders", DAY)
    store.append(store.claim("a", claim()), done("result"))
    stranger = RecordStore(Mount(root, key=b"l" * 32), "orders", DAY)
    with pytest.raises(SignatureError):
        stranger.claim("a", claim())


@pytest.mark.parametrize(
    "text",
    ["", "done", "done  00  1  -  -  =x", "open 00 1 - - -", "done 0 x - - -", "done 0 1 - - ?",
     "done 0 1 x - -"],
)  # fmt: skip
def test_a_text_that_is_no_revision_is_refused(text):
    assert parse(text) is None


def test_a_note_is_a_word():
    with pytest.raises(ValueError, match="a word of ASCII characters"):
        Content(CLAIMED, 0, note="two words")


def test_events_tell_what_happened(store):
    seen = []
    end = on_event(lambda event: seen.append((event["kind"], event["event"], event["state"])))
    try:
        late = store.claim("a", claim(lease=-1))
        store.append(store.claim("a", claim()), done("x"))
        with pytest.raises(ClaimLost):
            store.append(late, done("y"))
    finally:
        end()
    kinds = {kind for kind, *_ in seen}
    assert kinds == {"record"} and [(event, state) for _, event, state in seen] == [
        ("put", CLAIMED), ("changed", CLAIMED), ("put", CLAIMED), ("append", DONE),
        ("fenced", DONE),
    ]  # fmt: skip


# The sweep


def test_the_sweep_removes_windows_that_count_no_more(store, root, server):
    server.seconds = 12 * DAY
    store.append(store.claim("a", claim()), done("x" * 5000))
    server.seconds = 13 * DAY + 1
    store.claim("b", claim())
    folder = store.folder
    # The window ends at day 13, its records count for two hours, and a day is spared. The fourth
    # file closes "b" in it.
    for now, count in ((14 * DAY + 7199, 0), (14 * DAY + 7200, 4)):
        for dry_run in (True, False):
            server.seconds = now
            sizes = []
            assert retention.sweep(
                Mount(root), folder, now, lambda _, size, s=sizes: s.append(size), dry_run=dry_run
            )
            assert len(sizes) == count
    names = Mount(root).names(folder)
    assert "12" not in names and "13" in names
    assert [record_layout.parse_mark(name)[0] for name in names if "." in name] == [13]
    assert sum(sizes) > 5000


def test_the_sweep_leaves_foreign_files_and_names_them(store, root, server):
    server.seconds = 12 * DAY
    store.claim("a", claim())
    window = pathlib.Path(root, store.folder, "12")
    (window / "notes.txt").write_text("mine")
    assert sweep(root=root, older_than="1d").foreign == 0
    server.seconds = 30 * DAY
    report = sweep(root=root)
    assert report.reasons["record"] == 1 and report.foreign_paths == [str(window / "notes.txt")]
    assert (window / "notes.txt").read_text() == "mine"


def test_a_folder_of_another_name_is_foreign(root):
    os.makedirs(f"{root}/records/mine")
    report = sweep(root=root)
    assert report.foreign_paths == [f"{root}/records/mine"] and not report.errors


def test_a_large_window_is_removed_in_batches(store, root, server, monkeypatch):
    from efsstate.eviction import removal

    monkeypatch.setattr(removal, "BATCH", 7)
    server.seconds = 12 * DAY
    for key in range(30):
        store.claim(str(key), claim())
    server.seconds = 30 * DAY
    assert sweep(root=root).reasons["record"] == 30
    assert Mount(root).names(store.folder) == []


def test_a_sweep_without_time_gets_on(store, root, server, monkeypatch):
    from efsstate.eviction import removal

    monkeypatch.setattr(removal, "EVERY", 4)
    server.seconds = 12 * DAY
    for key in range(10):
        store.claim(str(key), claim())
    server.seconds = 30 * DAY
    removed = [sweep(root=root, budget=1e-9).removed for _ in range(5)]
    assert sum(removed) == 10 and removed[0] >= 3


@pytest.mark.parametrize(
    ("name", "is_ours"),
    [("0" * 48 + ".1", True), ("0" * 48 + ".01", False), ("0" * 48 + ".", False),
     ("0" * 47 + ".1", False), ("0" * 48 + ".1x", False), ("g" * 48 + ".1", False)],
)  # fmt: skip
def test_the_names_of_revisions(name, is_ours):
    assert record_layout.is_revision(name) is is_ours


def test_closed_is_a_state_of_its_own():
    assert parse(Content(CLOSED).text("00"))[1].state == CLOSED
