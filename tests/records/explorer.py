"""Explore every order of steps of the real code of records, over a mount that is a small model.

An actor is a call of `RecordStore` on a mount whose operations are recorded. The code is
deterministic, so an actor's state is the list of answers that it got so far: to take its next step
it is run again from the beginning with these answers, up to the first operation beyond them. An
actor that is never chosen again has crashed, and one that is chosen late was frozen.

Time passes as a step of its own, in seconds; a window is `WIDTH` of them. Actors read the server's
time, or a clock that is off by their skew, to choose their window. Each is on a host of its own,
and its client forgets nothing: a name that was looked up and missed stays missing until the actor
refreshes the folder, or creates a name in it.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections import deque

from efsstate.errors import ClaimLost
from efsstate.records import store as store_module
from efsstate.records import windows as windows_module
from efsstate.records.revision import CLAIMED, DONE, FREED, Content
from efsstate.records.store import RecordChanged, RecordStore
from efsstate.records.windows import Window

WIDTH = 3
LEASE = 1  # seconds that a claim is respected
KEPT = 2  # seconds that a result counts
KEY = "key"


class Pause(BaseException):
    """The actor wants to carry out an operation whose answer is not recorded yet."""

    def __init__(self, operation):
        super().__init__()
        self.operation = operation


class Answers:
    """A mount, a clock and a log that give recorded answers, and pause at the first one missing."""

    key = None

    def __init__(self, answers, actor):
        self._answers, self._actor, self._words = iter(answers), actor, 0

    def ask(self, *operation):
        for answer in self._answers:
            if isinstance(answer, type):
                raise answer(*operation)
            return answer
        raise Pause(operation)

    def path_of(self, *parts):
        return "/".join(parts)

    def symlink(self, folder, name, text):
        return self.ask("create", folder, name, text)

    def create(self, folder, name, build):
        return self.ask("create", folder, name, "a value")

    def readlink(self, folder, name):
        return self.ask("read", folder, name)

    def read_entry(self, folder, name):
        self.ask("read", folder, name)
        return type("Value", (), {"payload": b""})

    def find(self, folder, name):
        return self.ask("find", folder, name)

    def stat(self, folder, name):
        moment = self.ask("stat", folder, name)
        return os.stat_result((0o120777, 0, 0, 1, 0, 0, 0, moment, moment, moment))

    def stamp(self, folder, name):
        return self.ask("stamp", folder, name)

    def refresh(self, folder):
        return self.ask("refresh", folder)

    def names(self, folder):
        return self.ask("names", folder)

    def remove(self, folder, name, *, quiet=False):
        return self.ask("remove", folder, name)

    # The clock and chance, in place of `clock`, `time` and `os`

    def now(self):
        return self.ask("now", "")

    def time(self):
        return self.ask("time", "")

    def monotonic(self):
        return 0.0

    def observe(self, *times):
        pass

    def creation_time(self, moment):
        return moment

    def urandom(self, count):
        self._words += 1
        return bytes([self._actor, self._words]).rjust(count, b"\0")


def carry_out(files, missing, now, operation, skew):
    """Return (answer, files, missing) after one operation of one actor on the server."""
    kind, folder, *rest = operation
    if kind == "time":
        return now, files, missing
    if kind == "now":
        return now + skew, files, missing
    fresh = frozenset(name for name in missing if name[0] != folder)
    if kind == "refresh":
        return None, files, fresh
    if kind == "names":
        below = {path[len(folder) + 1 :].split("/")[0] for path, *_ in files if is_in(path, folder)}
        return tuple(sorted(below)), files, fresh
    path = f"{folder}/{rest[0]}"
    contents = {known: (text, moment) for known, text, moment in files}
    if kind == "create":  # exclusive: it always asks the server
        if path in contents:
            return FileExistsError, files, missing - {(folder, rest[0])}
        return None, files | {(path, rest[1], now)}, fresh
    if path not in contents or (folder, rest[0]) in missing:
        answer = {"find": None, "remove": False}.get(kind, FileNotFoundError)
        return answer, files, missing | {(folder, rest[0])}
    text, moment = contents[path]
    if kind == "remove":
        return True, files - {(path, text, moment)}, missing
    if kind == "stamp":
        return None, files - {(path, text, moment)} | {(path, text, now)}, missing
    return {"read": text, "stat": moment, "find": True}[kind], files, missing


def is_in(path, folder):
    return path.startswith(f"{folder}/")


class AllWindows:
    """In place of `Windows`: every earlier window is known."""

    def enter(self, now, reach):
        indexes, reach = range(now // WIDTH + 1), windows_module.reach_for(KEPT)
        windows = [Window("records/r.3", WIDTH, index, reach) for index in indexes]
        return windows[-1], windows[-2::-1]


class World:
    """The actors, what they do, and what must hold in every state.

    runs     how many actors claim the key, and give it a result
    frees    how many claim it, and free it
    looks    how many look twice
    asks     how many try to claim it twice, and free it
    times    the seconds that pass, one after another
    long     the results lie in files
    skews    by how much each actor's clock is off
    marks    actors mark their windows; else all know of all windows
    """

    def __init__(
        self,
        runs=2,
        frees=0,
        looks=0,
        asks=0,
        times=(0,),
        long=False,
        skews=(),
        lease=LEASE,
        marks=False,
    ):
        self.kinds = [self._run] * runs + [self._free] * frees + [self._look] * looks
        self.kinds += [self._ask] * asks
        self.skews = [*skews, *[0] * len(self.kinds)][: len(self.kinds)]
        self.times, self.lease = times, lease
        self.value = "v" * 5000 if long else "v"
        self.marks = marks
        self.advance = functools.cache(self._advance)

    def _claim(self, store, mount):
        """Return our claim, or None if there is a live claim or result."""
        has_result = mount.ask("call", "")
        now = mount.time()
        claim = Content(CLAIMED, now + KEPT, lease=(now + self.lease) * 1000)
        try:
            revision = store.claim(KEY, claim)
        except RecordChanged as changed:
            seen = changed.revision
            mount.ask("answer", "", seen.state, has_result, self._is_readable(store, seen))
        except ClaimLost:
            pass
        else:
            place = revision.window.index, revision.number
            mount.ask("begin", "", now + self.lease, place)
            return revision
        return None

    def _is_readable(self, store, revision):
        try:
            store.value(revision)
        except FileNotFoundError:
            return False
        return True

    def _run(self, store, mount):
        revision = self._claim(store, mount)
        if revision is not None:
            expires = mount.time() + KEPT
            try:
                store.append(revision, Content(DONE, expires, value=self.value))
            except ClaimLost:
                mount.ask("end", "")
            else:
                mount.ask("result", "", expires)

    def _free(self, store, mount):
        revision = self._claim(store, mount)
        if revision is not None:
            mount.ask("end", "")
            try:
                store.append(revision, Content(FREED))
            except ClaimLost:
                pass

    def _ask(self, store, mount):
        self._free(store, mount)
        self._free(store, mount)

    def _look(self, store, mount):
        for _ in range(2):
            has_result = mount.ask("call", "")
            revision = store.read(KEY)
            is_live = revision is not None and revision.is_live(mount.time())
            state = revision.state if is_live else FREED
            is_readable = revision is None or self._is_readable(store, revision)
            mount.ask("answer", "", state, has_result, is_readable)

    def _advance(self, index, answers):
        """Return the next operation of an actor, or None if it is done."""
        mount = Answers(answers, index)
        modules = (store_module, windows_module)
        kept = [(module, name, getattr(module, name)) for module in modules
                for name in ("os", "time", "clock") if hasattr(module, name)]  # fmt: skip
        try:
            for module, name, _ in kept:
                setattr(module, name, mount)
            store = RecordStore(mount, "r", WIDTH)
            if not self.marks:
                store._windows = AllWindows()
            self.kinds[index](store, mount)
        except Pause as pause:
            return pause.operation
        finally:
            for module, name, value in kept:
                setattr(module, name, value)
        return None


class Log:
    """The runs so far: (actor, "begin", end of its lease, place in the chain), or its end."""

    @staticmethod
    def add(log, index, now, operation):
        """Return (answer, log, the violation or None) for an entry by the actor `index`."""
        kind, _, *rest = operation
        results = [until for _, what, until, _ in log if what == "result"]
        has_result = any(until >= now for until in results)
        if kind == "call":
            return has_result, log, None
        if kind == "answer":
            state, had_result, is_readable = rest
            if not is_readable:
                return None, log, "a result that cannot be read"
            if had_result and has_result and state != DONE:
                return None, log, "an acknowledged result is not there"
            return None, log, None
        # A run that begins after its own time, because it was frozen, cannot be kept from it.
        if kind == "begin" and rest[0] >= now:
            ended = {actor for actor, what, *_ in log if what in ("end", "result")}
            for actor, what, until, _ in log:
                if what == "begin" and until >= now and actor not in ended:
                    return None, log, "two runs at once"
            if has_result:
                return None, log, "a run after an acknowledged result"
        if kind == "result" and rest[0] >= now:
            places = {actor: place for actor, what, _, place in log if what == "begin"}
            if any(place > places[index] for place in places.values()):
                return None, log, "a late run was acknowledged"
        return None, (*log, (index, kind, *rest, *[0] * (2 - len(rest)))), None


def is_independent(operation, files, missing, *, is_last):
    """Return True if no step of another actor, and no passing time, can change its answer.

    Such a step is taken at once: in another order it would lead to the same states.
    """
    kind, folder, *rest = operation
    if kind in ("time", "now"):
        return is_last
    if kind not in ("read", "find", "stat", "create") or (folder, rest[0]) in missing:
        return False
    # No link in a window is ever changed or removed, nor created twice.
    path = f"{folder}/{rest[0]}"
    return folder.count("/") == 2 and any(path == known for known, *_ in files)


def explore(world, limit=2_000_000):
    """Visit every state; return (their number, the first violation or None)."""
    count = len(world.kinds)
    after = dict(itertools.pairwise(world.times))
    start = (frozenset(), world.times[0], ((),) * count, (frozenset(),) * count, ())
    seen, waiting = {start}, deque([start])
    while waiting:
        files, now, answers, missing, log = waiting.popleft()
        operations = [world.advance(i, answers[i]) for i in range(count)]
        states = [(files, after[now], answers, missing, log)] if now in after else []
        chosen = [i for i in range(count) if operations[i] is not None]
        for i in chosen:
            if is_independent(operations[i], files, missing[i], is_last=now not in after):
                chosen, states = [i], []
                break
        for i in chosen:
            operation = operations[i]
            changed, known, logged = files, missing[i], log
            if operation[0] in ("call", "answer", "begin", "result", "end"):
                answer, logged, wrong = Log.add(log, i, now, operation)
                if wrong is not None:
                    return len(seen), wrong
            else:
                answer, changed, known = carry_out(files, known, now, operation, world.skews[i])
            states.append((
                changed,
                now,
                (*answers[:i], (*answers[i], answer), *answers[i + 1 :]),
                (*missing[:i], known, *missing[i + 1 :]),
                logged,
            ))  # fmt: skip
        for state in states:
            if state not in seen:
                seen.add(state)
                waiting.append(state)
        if len(seen) > limit:
            raise AssertionError(f"more than {limit} states")
    return len(seen), None
