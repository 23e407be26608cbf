"""Change the state of a key by compare-and-set, through exclusive creates alone.

A record is a chain of revisions, symbolic links `<digest>.1`, `<digest>.2`, …; none is ever changed
or removed while its window may count. Whoever wants to change a record creates the revision after
the one that it has seen. Of several exactly one succeeds, and a run that comes too late fails.

    nothing ──> claimed ──> done                a result, until it expires
                   │  ▲
                   ▼  │
                 freed, or the claim's lease is over: the next claim
                   │
                   ▼
                 closed                         the record continues in a later window

- A claim is made in the window of the server's present time; see `windows`. First the record is
  closed in each earlier window that may still count, so that a run from there comes too late, too.
- A result that a link can't hold is a file that is written before the link which names it.
- A result is final until it expires. So who sees one need not look for a revision after it.
- Who sees no next revision asks the server again: an NFS client remembers missing names.

`tests/records/explorer.py` tries every order of these steps, with crashes and clocks that differ.
"""

from __future__ import annotations

import errno
import os
import time
from functools import partial

from efsstate import events, process
from efsstate.errors import ClaimLost, CorruptEntryError, EfsStateError
from efsstate.format import entry
from efsstate.format import record_layout as names
from efsstate.mount import clock, links
from efsstate.records.revision import CLAIMED, CLOSED, DONE, FREED, Content, Revision, parse
from efsstate.records.windows import SLACK, TRIES, Windows, reach_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.mount.files import Mount
    from efsstate.records.windows import Window

_LONGEST = 3900  # characters of a link's text, before its checksum and line breaks
_CODEC = "text"


class RecordChanged(Exception):  # noqa: N818 - the answer of a compare-and-set, and no fault
    """The record is not as the caller expected; `revision` is its newest one."""

    def __init__(self, revision: Revision) -> None:
        super().__init__(f"revision {revision.number}: {revision.state}")
        self.revision = revision


class RecordStore:
    """The records of one namespace: `name`, with windows of `width` seconds."""

    def __init__(self, mount: Mount, name: str, width: int) -> None:
        self.mount, self.name = mount, name
        self.folder = names.namespace(name, width)
        self._windows = Windows(mount, self.folder, width)

    # Reading

    def read(self, key: str) -> Revision | None:
        """Return the newest revision of `key`, as the server has it now; None if there is none."""
        digest, now = names.key_digest(key), clock.now()
        for _ in range(TRIES):
            current, earlier = self._windows.enter(now, reach_for(0))
            for window in (current, *_that_count(earlier, now)):
                self.mount.refresh(window.folder)
                if not self._exists(window, digest, 1):
                    continue
                revision = self._newest(window, digest, 1, is_fresh=True)
                if revision.state != CLOSED:
                    return revision
                if window is current:
                    now = self._closed_at(revision)
                    break  # it continues in a window that has begun by the server's clock
            else:
                return None
        raise self._clock_jumps()

    def value(self, revision: Revision) -> str | None:
        """Return the value of a revision. Raise `CorruptEntryError` if its file is damaged."""
        content = revision.content
        if not content.is_filed:
            return content.value
        name = names.value_name(revision.digest, revision.writer)
        return str(bytes(self.mount.read_entry(revision.window.folder, name).payload), "utf-8")

    # Changing

    def claim(self, key: str, content: Content) -> Revision:
        """Put a claim, unless there is a live claim or result of `key`; return our revision.

        Raise `RecordChanged` with the live one, and `ClaimLost` if the lease is over before the
        claim is made, because this process was frozen.
        """
        wall, seen = time.time(), None
        while True:
            try:
                revision = self.put(key, content, seen)
                break
            except RecordChanged as changed:
                seen = changed.revision
                # MUT: a-live-claim-is-respected
                if seen.is_live(time.time()):
                    raise
        # MUT: a-claim-that-is-over-begins-no-run
        if revision.is_live(wall) and not revision.is_live(time.time()):
            self._free_quietly(revision)
            raise ClaimLost(
                f"{self._path(revision)}: the claim's time was over before it was made; call again"
            )
        return revision

    def put(self, key: str, content: Content, after: Revision | None = None) -> Revision:
        """Give `key` a new state in the present window, if its newest revision is `after`.

        `after` is the revision that the caller has seen; None: it expects none. Return the new
        revision. Raise `RecordChanged` with the newest one if that is another, and `OSError`.
        """
        began, writer = time.monotonic(), os.urandom(8).hex()
        digest, now = names.key_digest(key), clock.now()
        reach = reach_for(content.expires - now)
        try:
            for _ in range(TRIES):
                window, earlier = self._windows.enter(now, reach)
                looked = _that_count(earlier, now)
                number = 1
                try:
                    if after is not None and _is_in(after, window):
                        number = after.number + 1
                    else:
                        self._close(looked, digest, after)
                    revision, now = self._create(window, digest, number, writer, content)
                except RecordChanged as changed:
                    if changed.revision.state == CLOSED:
                        now, after = self._closed_at(changed.revision), None
                        continue
                    raise
                # A process that was frozen before its create, or has a slow clock, may claim in a
                # window that is over, where nobody looks any more. With a fast clock it may have
                # passed over a window that counts.
                # MUT: a-claim-counts-in-its-window-alone
                if now < window.end and not _passed_over(earlier, looked, now):
                    events.emit(
                        "record", "put", self.name, state=content.state, seconds=_since(began)
                    )
                    return revision
                self._free_quietly(revision)
        except RecordChanged as changed:
            events.emit(
                "record", "changed", self.name, state=changed.revision.state, seconds=_since(began)
            )
            raise
        raise self._clock_jumps()

    def append(self, revision: Revision, content: Content) -> Revision:
        """Add the next revision to a record, in its own window; return it.

        Raise `ClaimLost` if there is one already, or the window does not count any more. Then the
        record is unchanged, or nobody will ever look at it.
        """
        began, writer = time.monotonic(), os.urandom(8).hex()
        try:
            appended, now = self._create(
                revision.window, revision.digest, revision.number + 1, writer, content
            )
        except RecordChanged as changed:
            events.emit(
                "record", "fenced", self.name, state=changed.revision.state, seconds=_since(began)
            )
            raise ClaimLost(
                f"{self._path(revision)}: another run took the record over, which is"
                f" {changed.revision.state} now; this run's result was not kept"
            ) from None
        # MUT: a-result-counts-while-others-look
        if now >= revision.window.limit:
            events.emit("record", "fenced", self.name, state="expired", seconds=_since(began))
            raise ClaimLost(
                f"{self._path(revision)}: the record expired before the run ended; its result was"
                " not kept"
            )
        events.emit("record", "append", self.name, state=content.state, seconds=_since(began))
        return appended

    def finish(self, key: str, seen: Revision | None, content: Content) -> None:
        """End a run, DONE or FREED: replace the claim that it has seen; else the one that is there.

        Raise `ClaimLost` if another run took it over, or `key` has a result already.
        """
        # MUT: a-run-finishes-its-own-claim-alone
        if seen is None or seen.state != CLAIMED:
            seen = self.read(key)
        if seen is not None and seen.state == CLAIMED:
            self.append(seen, content)
        elif seen is not None and seen.is_live(time.time()):
            raise ClaimLost(
                f"{self._path(seen)}: the record has a result already, which stays until it expires"
            )
        elif content.state == DONE:
            self._claim_done(key, content)

    def _claim_done(self, key: str, content: Content) -> None:
        try:
            self.claim(key, content)
        except RecordChanged as changed:
            raise ClaimLost(f"{self._path(changed.revision)}: another run has the record") from None

    def _close(self, earlier: list[Window], digest: str, after: Revision | None) -> None:
        """Close the record in the earlier windows; raise `RecordChanged` if it is open there."""
        for window in earlier:
            is_last = _is_in(after, window)
            number = after.number + 1 if after is not None and is_last else 1
            # MUT: a-record-is-closed-in-the-earlier-windows
            try:
                self._create(window, digest, number, os.urandom(8).hex(), Content(CLOSED))
            except RecordChanged as changed:
                if changed.revision.state != CLOSED:
                    raise
            # Older ones were closed before the record was claimed in this one. A window in which
            # it was closed at once tells nothing: its closer may have died before the next step.
            if is_last:
                return

    def _create(
        self, window: Window, digest: str, number: int, writer: str, content: Content
    ) -> tuple[Revision, float]:
        """Create a revision; return it with the server's time. Raise `RecordChanged`."""
        mount, name = self.mount, names.revision_name(digest, number)
        text = content.text(writer)
        is_inline = len(text) <= _LONGEST and text.isascii() and text.isprintable()
        wall, steady = time.time(), time.monotonic()
        for is_filed in (False, True) if is_inline else (True,):
            if is_filed:
                # MUT: a-value-is-written-before-it-is-named
                self._write_value(window, digest, writer, content)
                text = content.text(writer, filed=True)
            try:
                # MUT: a-revision-is-created-exclusively
                links.create(mount, window.folder, name, text)
                break
            except FileExistsError:
                newest = self._newest(window, digest, number)
                # After a lost reply the revision that is there is our own.
                # MUT: a-lost-reply-to-a-revision-is-told-from-a-loss
                if newest.number == number and newest.writer == writer:
                    break
                if is_filed:
                    mount.remove(window.folder, names.value_name(digest, writer), quiet=True)
                raise RecordChanged(newest) from None
            except OSError as error:  # some local file systems' links hold less
                if is_filed or content.value is None or error.errno != errno.ENAMETOOLONG:
                    raise
        status = mount.stat(window.folder, name)
        clock.observe(status.st_mtime, wall, steady)
        return (
            Revision(window, digest, number, writer, content),
            clock.creation_time(status.st_mtime),
        )

    def _write_value(self, window: Window, digest: str, writer: str, content: Content) -> None:
        name, folder = names.value_name(digest, writer), window.folder
        payload = (content.value or "").encode("utf-8", "surrogatepass")
        build = partial(
            entry.encode, payload, place=f"{folder}/{name}", codec=_CODEC, ttl=None,
            key=self.mount.key,
        )  # fmt: skip
        self.mount.create(folder, name, build)

    def _free_quietly(self, revision: Revision) -> None:
        try:
            self.append(revision, Content(FREED))
        except (OSError, EfsStateError) as error:
            process.raise_of_handler(error)  # else the lease ends the claim

    # Looking

    def _newest(
        self, window: Window, digest: str, number: int, *, is_fresh: bool = False
    ) -> Revision:
        """Return the newest revision from `number` on, which exists."""
        newest = number
        if not is_fresh:
            revision = self._look(window, digest, number + 1)
            if revision is not None:
                if revision.state == DONE and revision.is_live(time.time()):
                    return revision
                newest = number + 1
            # This host's client may remember from an earlier look that a name was missing.
            # MUT: a-missing-revision-is-asked-of-the-server
            self.mount.refresh(window.folder)
        # No number is left out, so a long chain's end is found by bisection.
        step = 1
        while self._exists(window, digest, newest + step):
            newest += step
            step *= 2
        while step > 1:
            step //= 2
            if self._exists(window, digest, newest + step):
                newest += step
        revision = self._look(window, digest, newest)
        if revision is None:
            raise EfsStateError(
                f"{self.mount.path_of(window.folder, names.revision_name(digest, newest))}: it was"
                " removed while it was read; call again"
            )
        return revision

    def _look(self, window: Window, digest: str, number: int) -> Revision | None:
        """Return a revision as this host's client knows it; None if there is none."""
        name = names.revision_name(digest, number)
        try:
            parsed = parse(links.read(self.mount, window.folder, name))
        except FileNotFoundError:
            return None
        if parsed is None:
            raise CorruptEntryError(
                self.mount.path_of(window.folder, name), "its text is no revision's; remove it"
            )
        return Revision(window, digest, number, *parsed)

    def _exists(self, window: Window, digest: str, number: int) -> bool:
        return self.mount.find(window.folder, names.revision_name(digest, number)) is not None

    def _closed_at(self, revision: Revision) -> float:
        """Return the server's time at which a record was closed, after its window's end."""
        name = names.revision_name(revision.digest, revision.number)
        status = self.mount.stat(revision.window.folder, name)
        return max(clock.creation_time(status.st_mtime), revision.window.end)

    # Telling

    def _path(self, revision: Revision) -> str:
        name = names.revision_name(revision.digest, revision.number)
        return self.mount.path_of(revision.window.folder, name)

    def _clock_jumps(self) -> EfsStateError:
        path = self.mount.path_of(self.folder)
        return EfsStateError(f"{path}: the server's clock jumps; check its time")


def _since(began: float) -> float:
    return time.monotonic() - began


def _that_count(windows: list[Window], now: float) -> list[Window]:
    return [window for window in windows if window.limit + SLACK > now]


def _passed_over(windows: list[Window], looked: list[Window], now: float) -> bool:
    """Return True if a window that counts at `now` is not among `looked`."""
    return any(window.limit > now and window not in looked for window in windows)


def _is_in(revision: Revision | None, window: Window) -> bool:
    return revision is not None and revision.window.index == window.index
