"""`resume` and `map` as a state machine, explored: readers, kills, errors, saves and the deadline.

Items are numbered from 0. A reader takes them (`taken`), does them (`done`, a set), and the loop
counts some of them (`counted`, a watermark) and saves that (`saved`). Between two steps the process
may be killed, so that a new claim begins at `saved`.

Checked, at every step:

  LOST      a save counts an item that is not done (and was not given up)
  EARLY     the job is finished, and an item is not done
  SKIPPED   an item was given up that did not fail, or not as often as the attempts say: a claim
            that was killed before any item was noted counts as a failure of each that it can have
            begun
"""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Rules:
    """The explored space, and the rules, each of which can be broken."""

    items: int = 4
    reader: str = "for"  # "for" "batch" (of 2) "ahead" (takes 2, then does them) "collect" "map"
    kills: int = 2
    errors: int = 1  # of an item, in the work on it
    poison: int = -1  # an item that kills each time
    attempts: int = 0
    every: int = 1  # items between saves
    # The rules
    done_when_asked: bool = True  # an item counts once the next is asked for; else once it is given
    batch_as_a_whole: bool = True  # else each of its items counts once it is given
    ahead_is_not_saved: bool = True  # a reader that takes items ahead saves nothing in between
    raised_counts_nothing: bool = True  # a block that raises after the end saves nothing more
    watermark: bool = True  # `map` counts no item above one that is not done; else as many as done
    asked_not_computed: bool = True  # `map` counts an item when its result was used; else computed
    exhausted_to_finish: bool = True  # else the deadline's end finishes the job
    noted_to_skip: bool = True  # only an item that was noted is given up; else the next one
    keep_position: bool = True  # a new claim begins at the save; else at what was counted


class State(NamedTuple):
    """A moment: what is saved and done for all, and how far this claim is."""

    saved: int = 0
    done: frozenset = frozenset()
    given_up: frozenset = frozenset()
    fails: tuple = ()
    noted: int = -1  # the item that was noted before it was begun, -1 for none
    tries: int = 0
    is_dirty: bool = False  # the claim before did not end in order
    is_known: bool = False  # and which item failed was noted
    finished: bool = False
    kills: int = 0
    errors: int = 0
    # This claim: "idle", "ask", "work" (on `taken` down from `at`), "end", "after" the loop
    step: str = "idle"
    at: int = 0  # the first item that is not counted
    taken: int = 0  # the next item that the source gives
    open: frozenset = frozenset()  # taken, and not done in this claim
    used: frozenset = frozenset()  # `map`: computed, and its result was used
    is_over: bool = False  # the source came to its end


class Loops:
    """The machine, for `explore`."""

    def __init__(self, rules):
        self.rules = rules

    def initial(self):
        r = self.rules
        return State(fails=(0,) * r.items, kills=r.kills, errors=r.errors)

    def next(self, s):
        for label, after in self.steps(s):
            yield label, after, self.check(s, after)

    def check(self, before, s):
        for item in range(s.saved):
            if item not in s.done and item not in s.given_up:
                return f"LOST item {item} is saved as done"
        if s.finished and len(s.done | s.given_up) < self.rules.items:
            return "EARLY finished, with items that are not done"
        for item in s.given_up - before.given_up - s.done:
            unnoted = self.rules.kills - s.kills
            if not s.fails[item] or s.fails[item] + unnoted < self.rules.attempts:
                return f"SKIPPED item {item} after {s.fails[item]} failures"
        return None

    def steps(self, s):
        r = self.rules
        if s.finished:
            return
        if s.step == "idle":
            claimed = s._replace(step="ask", at=s.saved, taken=s.saved, open=frozenset())
            yield "claim", claimed._replace(is_known=s.noted == s.saved and s.tries > 0)
            return
        if s.kills:
            # Until the next one is asked for, the last item is being done.
            item = min(s.open, default=s.taken - 1) if s.step == "work" else None
            yield "kill", self.killed(s, item)._replace(kills=s.kills - 1)
        yield from {"ask": self.ask, "work": self.work, "end": self.end}[s.step](s)
        if s.step == "ask" and r.reader != "map":
            yield "deadline", self.left(self.asked(s), is_over=not r.exhausted_to_finish)

    def killed(self, s, item):
        fails = list(s.fails)
        if item is not None:
            fails[item] += 1
        kept = s.saved if self.rules.keep_position else max(s.saved, s.at)
        return s._replace(
            step="idle",
            saved=kept,
            fails=tuple(fails),
            is_dirty=True,
            open=frozenset(),
            used=frozenset(),
            is_over=False,
        )

    def save(self, s):
        return s._replace(saved=max(s.saved, s.at), noted=-1, tries=0)

    def asked(self, s):
        """The next item is asked for: those before count, if their reader does one by one."""
        r = self.rules
        if r.reader in ("ahead", "collect") and r.ahead_is_not_saved:
            return s
        if r.reader == "map":
            return s
        counted = s.taken if r.done_when_asked else min(s.taken + 1, r.items)
        return self.in_time(s._replace(at=counted))

    def in_time(self, s):
        return self.save(s) if s.at - s.saved >= self.rules.every else s

    def ask(self, s):
        r = self.rules
        if r.reader == "map":
            yield from self.ask_of_map(s)
            return
        s = self.asked(s)
        if s.taken == r.items:
            yield "the source ends", s._replace(step="end", is_over=True)
            return
        if r.attempts and s.is_dirty:
            yield from self.noted(s)
            return
        yield from self.give(s)

    def noted(self, s):
        """A claim after one that did not end in order."""
        r, item = self.rules, s.taken
        failures = s.tries if s.noted == item else 1
        is_known = s.noted == item or not r.noted_to_skip
        if is_known and failures >= r.attempts:
            after = s._replace(given_up=s.given_up | {item}, taken=item + 1, at=item + 1)
            yield f"give up {item}", self.save(after)._replace(is_dirty=False)
            return
        after = self.save(s)._replace(noted=item, tries=failures + 1)
        yield from self.give(after)

    def give(self, s):
        r = self.rules
        count = {"batch": 2, "ahead": 2, "collect": r.items}.get(r.reader, 1)
        until = min(s.taken + count, r.items)
        given = s._replace(taken=until, open=frozenset(range(s.taken, until)), step="work")
        if r.reader == "batch" and not r.batch_as_a_whole:
            given = self.in_time(given._replace(at=until - 1))
        if r.reader == "ahead" and not r.ahead_is_not_saved:
            given = self.in_time(given._replace(at=until - 1))
        if r.reader == "collect" and not r.ahead_is_not_saved:
            given = self.in_time(given._replace(at=until))
        yield f"give {sorted(given.open)}", given

    def work(self, s):
        r = self.rules
        if not s.open:
            is_over = r.reader == "collect"
            # The item that failed was known, and is done: no more need be noted.
            is_dirty = s.is_dirty and not s.is_known
            step = "end" if is_over else "ask"
            yield "ask", s._replace(step=step, is_over=is_over, is_dirty=is_dirty)
            return
        item = min(s.open)
        if item == r.poison:
            yield f"{item} kills", self.killed(s, item)
            return
        yield f"do {item}", s._replace(done=s.done | {item}, open=s.open - {item})
        if s.errors:
            fails = tuple(f + (n == item) for n, f in enumerate(s.fails))
            raised = s._replace(errors=s.errors - 1, fails=fails)
            yield f"{item} raises", self.raised(raised, item)

    def raised(self, s, item):
        r = self.rules
        is_collected = r.reader in ("ahead", "collect")
        after = s
        if not is_collected or not r.raised_counts_nothing:
            after = self.save(s) if s.at > s.saved else s
        if is_collected and not r.raised_counts_nothing:
            after = after._replace(saved=s.taken)
        tries = s.tries if s.noted == item else 1
        noted, tries = (item, tries) if r.attempts and after.saved == item else (-1, 0)
        return after._replace(
            step="idle", noted=noted, tries=tries, is_dirty=noted >= 0, open=frozenset()
        )

    def ask_of_map(self, s):
        """Up to two items are open at once; results are used in order."""
        r = self.rules
        if s.taken < r.items and len(s.open) < 2:
            yield f"begin {s.taken}", s._replace(taken=s.taken + 1, open=s.open | {s.taken})
        for item in sorted(s.open):
            computed = s._replace(done=s.done | {item}, open=s.open - {item})
            if not r.asked_not_computed:
                computed = self.in_time(computed._replace(at=self.mark(computed, computed.done)))
            yield f"compute {item}", computed
            if s.errors:
                yield f"{item} raises", self.raised(s._replace(errors=s.errors - 1), item)
        ready = [n for n in range(s.at, s.taken) if n not in s.open and n not in s.used]
        for item in ready:
            used = s._replace(used=s.used | {item})
            yield f"use {item}", self.in_time(used._replace(at=self.mark(used, used.used)))
        if s.taken == r.items and not s.open and not ready:
            yield "the source ends", s._replace(step="end", is_over=True)

    def mark(self, s, counted):
        if not self.rules.watermark:
            return max(s.at, min(s.saved + len(counted), self.rules.items), len(counted))
        at = s.at
        while at in counted and at not in s.open and at < s.taken:
            at += 1
        return at

    def end(self, s):
        yield "leave", self.left(s, is_over=s.is_over)

    def left(self, s, *, is_over):
        """The block ends without an error: all that was taken is done."""
        counted = s._replace(at=s.at if self.rules.reader == "map" else s.taken)
        if counted.at == s.saved and not is_over:  # it did nothing: nothing is saved
            return s._replace(step="idle", open=frozenset(), used=frozenset())
        after = self.save(counted)._replace(step="idle", is_dirty=False)
        return after._replace(finished=is_over)


SPACES = {
    "a for statement": {},
    "batches": {"reader": "batch"},
    "a reader that takes items ahead": {"reader": "ahead"},
    "items that are only collected": {"reader": "collect"},
    "several at a time": {"reader": "map"},
    "saves that are rarer than items": {"every": 3, "items": 5},
    "an item that kills": {"poison": 1, "attempts": 2, "kills": 0},
    "an item that kills, kills and errors besides": {"poison": 2, "attempts": 3, "kills": 1},
    "attempts, and saves that are rarer than items": {"attempts": 2, "every": 3, "poison": 2},
}

BROKEN = {
    "counting an item only when the next is asked for": {"done_when_asked": False},
    "counting a batch as a whole": {"batch_as_a_whole": False, "reader": "batch"},
    "saving nothing of what is read ahead": {"ahead_is_not_saved": False, "reader": "ahead"},
    "counting nothing if a block raises after the end": {
        "raised_counts_nothing": False,
        "reader": "collect",
    },
    "a watermark": {"watermark": False, "reader": "map"},
    "finishing at the source's end alone": {"exhausted_to_finish": False},
    "giving up only an item that was noted": {
        "noted_to_skip": False,
        "attempts": 1,
        "kills": 1,
        "errors": 0,
        "every": 3,
    },
    "a new claim that begins at the save": {"keep_position": False, "done_when_asked": False},
}
