"""The protocol of records, explored in every order of its steps; and each of its rules, broken."""

import pytest
from tests.records import explorer
from tests.records.explorer import World, explore

from efsstate.errors import ClaimLost
from efsstate.format import record_layout
from efsstate.mount import links
from efsstate.records import store as store_module
from efsstate.records import windows as windows_module
from efsstate.records.revision import Content
from efsstate.records.store import RecordStore

TURN = {"times": (explorer.WIDTH - 1, explorer.WIDTH)}  # from a window to the next
LATER = {"times": (0, 3 * explorer.WIDTH)}  # to one that does not look back to the first
SOON = {"times": (0, 1)}
WORLDS = [
    {"runs": 3},
    {"runs": 2, **SOON, "lease": 0},
    {"runs": 2, **SOON, "long": True},
    {"runs": 1, "frees": 1, **SOON},
    {"runs": 1, "looks": 1, **SOON},
    {"runs": 1, "asks": 1},
    {"runs": 2, **TURN},
    {"runs": 2, **LATER},
]
LARGE = [
    {"runs": 2, **TURN, "lease": 0},
    {"runs": 2, **TURN, "marks": True},
    {"runs": 2, **TURN, "skews": (1,)},
    {"runs": 2, **TURN, "skews": (-1,)},
    {"runs": 2, "looks": 1},
    {"runs": 2, "times": (0, 1, 2)},
]


@pytest.fixture(autouse=True)
def small_times(monkeypatch):
    """A second is the unit of everything."""
    monkeypatch.setattr(windows_module, "_UNIT", 1)
    monkeypatch.setattr(windows_module, "_MARGIN", 1.0)
    monkeypatch.setattr(store_module, "SLACK", 0)


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_no_order_of_steps_breaks_a_promise(world):
    """Two runs never overlap, an acknowledged result stays, a late run is refused."""
    states, wrong = explore(World(**world))
    assert wrong is None
    assert states > 500


@pytest.mark.slow
@pytest.mark.parametrize("world", LARGE, ids=str)
def test_no_order_of_more_steps_breaks_a_promise(world):
    states, wrong = explore(World(**world), limit=4_000_000)
    assert wrong is None
    assert states > 1000


def without_the_fence(monkeypatch):
    """A run overwrites whatever came after its claim, as Powertools' own layers do."""
    append = RecordStore.append

    def overwrite(self, revision, content):
        try:
            return append(self, revision, content)
        except ClaimLost:
            return revision

    monkeypatch.setattr(RecordStore, "append", overwrite)


def without_the_fresh_look(monkeypatch):
    monkeypatch.setattr(explorer.Answers, "refresh", lambda self, folder: None)


def without_the_fresh_look_of_a_claim(monkeypatch):
    newest = RecordStore._newest

    def remember(self, window, digest, number, *, is_fresh=False):
        if not is_fresh:
            monkeypatch.setattr(explorer.Answers, "refresh", lambda self, folder: None)
        try:
            return newest(self, window, digest, number, is_fresh=is_fresh)
        finally:
            monkeypatch.setattr(explorer.Answers, "refresh", refresh)

    refresh = explorer.Answers.refresh
    monkeypatch.setattr(RecordStore, "_newest", remember)


def without_exclusive_creates(monkeypatch):
    create = links.create

    def take(mount, folder, name, text):
        try:
            create(mount, folder, name, text)
        except FileExistsError:
            if folder.count("/") < 2:
                raise

    monkeypatch.setattr(links, "create", take)


def with_the_value_after_its_name(monkeypatch):
    write, create = RecordStore._write_value, RecordStore._create

    def late(self, window, digest, number, writer, content):
        monkeypatch.setattr(RecordStore, "_write_value", lambda *_: None)
        try:
            revision = create(self, window, digest, number, writer, content)
        finally:
            monkeypatch.setattr(RecordStore, "_write_value", write)
        if content.value is not None:
            self._write_value(window, digest, writer, content)
        return revision

    monkeypatch.setattr(RecordStore, "_create", late)


def without_the_earlier_windows(monkeypatch):
    monkeypatch.setattr(RecordStore, "_close", lambda *_: None)


def with_a_look_in_place_of_the_close(monkeypatch):
    """The earlier windows are looked at, and nothing keeps a run there from its late result."""

    def look(self, earlier, digest, after):
        for window in earlier:
            if self._exists(window, digest, 1) and after is None:
                revision = self._newest(window, digest, 1)
                raise store_module.RecordChanged(revision)

    monkeypatch.setattr(RecordStore, "_close", look)


def without_the_claims_window(monkeypatch):
    """A claim counts in whichever window it was made."""
    create = RecordStore._create

    def at_the_start(self, window, *arguments):
        return create(self, window, *arguments)[0], window.start

    monkeypatch.setattr(RecordStore, "_create", at_the_start)


def without_the_end_of_the_look_back(monkeypatch):
    """A result counts however late it comes."""

    def append(self, revision, content):
        try:
            return self._create(
                revision.window, revision.digest, revision.number + 1, "0" * 16, content
            )[0]
        except store_module.RecordChanged:
            raise ClaimLost("late") from None

    monkeypatch.setattr(RecordStore, "append", append)


def without_the_marks(monkeypatch):
    """A window counts only until its end."""
    parse = record_layout.parse_mark
    monkeypatch.setattr(
        record_layout, "parse_mark", lambda name: (parse(name)[0], 0, "") if parse(name) else None
    )
    monkeypatch.setattr(windows_module.Windows, "_is_signed", lambda *_: True)


def with_results_that_are_not_final(monkeypatch):
    """A record with a result can be claimed again."""
    from efsstate.records.revision import Revision

    monkeypatch.setattr(Revision, "is_live", lambda self, now: False)


def without_the_claims_own_time(monkeypatch):
    """A claim is respected only within the second in which it was made."""
    text = Content.text

    def shorten(self, writer, *, filed=False):
        if self.lease is not None:
            self.lease -= 1000
        return text(self, writer, filed=filed)

    monkeypatch.setattr(Content, "text", shorten)


BROKEN = [
    (without_the_fence, {"runs": 2, **SOON, "lease": 0}),
    (without_the_fresh_look, {"runs": 1, "looks": 1}),
    (without_the_fresh_look_of_a_claim, {"runs": 1, "asks": 1}),
    (without_exclusive_creates, {"runs": 2}),
    (with_the_value_after_its_name, {"runs": 2, "long": True}),
    (without_the_earlier_windows, {"runs": 2, **TURN}),
    (with_a_look_in_place_of_the_close, {"runs": 2, **TURN, "lease": 0}),
    (without_the_claims_window, {"runs": 2, **LATER}),
    (without_the_end_of_the_look_back, {"runs": 2, **LATER}),
    (without_the_marks, {"runs": 2, **TURN, "marks": True}),
    (with_results_that_are_not_final, {"runs": 2}),
    (without_the_claims_own_time, {"runs": 2, **SOON}),
]


@pytest.mark.parametrize(
    ("rule", "world"), BROKEN, ids=lambda value: getattr(value, "__name__", "")
)
def test_without_a_rule_the_search_finds_a_violation(rule, world, monkeypatch):
    """Each rule of the protocol is needed."""
    rule(monkeypatch)
    _, wrong = explore(World(**world))
    assert wrong is not None
    print(wrong)
