"""Describe one revision of a record, and turn it into the text of a link and back."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.records.windows import Window

CLAIMED, DONE, FREED, CLOSED = "claimed", "done", "freed", "closed"
STATES = (CLAIMED, DONE, FREED, CLOSED)
_NONE, _INLINE, _FILED = "-", "=", "@"


class Content:
    """The state that a revision gives a record.

    state    CLAIMED: its writer is at work; DONE: it has a result, and stays so until it expires;
             FREED: there is no state; CLOSED: the record continues in a later window
    expires  seconds since the epoch until which the state counts, by its writer's clock
    lease    milliseconds since the epoch until which a claim is respected; None: until it expires
    note     a short word of the caller's, without spaces
    value    the caller's text, or None
    is_filed True if the value lies in a file, and has yet to be read
    """

    __slots__ = ("expires", "is_filed", "lease", "note", "state", "value")

    def __init__(
        self,
        state: str,
        expires: int = 0,
        *,
        lease: int | None = None,
        note: str = "",
        value: str | None = None,
    ) -> None:
        if not note.isascii() or not note.isprintable() or " " in note:
            raise ValueError(f"note {note!r}: a word of ASCII characters is needed")
        self.state, self.expires, self.lease = state, int(expires), lease
        self.note, self.value, self.is_filed = note, value, False

    def text(self, writer: str, *, filed: bool = False) -> str:
        """Return the text of the link; `filed`: the value lies in a file."""
        value = _NONE if self.value is None else _INLINE + self.value
        value = _FILED if filed else value
        lease = _NONE if self.lease is None else int(self.lease)
        return f"{self.state} {writer} {self.expires} {lease} {self.note or _NONE} {value}"


class Revision:
    """One revision of a record: revision `number` of `digest` in a window, with its `content`.

    `writer` is a random word of the process that created it, so that this process recognizes its
    own revision after a lost reply. `number` is the fencing token: only the next number follows it.
    """

    __slots__ = ("content", "digest", "number", "window", "writer")

    def __init__(
        self, window: Window, digest: str, number: int, writer: str, content: Content
    ) -> None:
        self.window, self.digest, self.number = window, digest, number
        self.writer, self.content = writer, content

    @property
    def state(self) -> str:
        """Return the state of its content."""
        return self.content.state

    @property
    def expires(self) -> int:
        """Return until when it counts: never for longer than others look into its window."""
        return min(self.content.expires, int(self.window.limit))

    def is_live(self, now: float) -> bool:
        """Return True if it is a result or a claim that others respect at `now`, by their clock."""
        if self.state not in (CLAIMED, DONE) or self.expires < int(now):
            return False
        lease = self.content.lease
        return self.state == DONE or lease is None or lease >= int(now * 1000)


def parse(text: str) -> tuple[str, Content] | None:
    """Return (writer, content) of a link's text; None if it is no text of a revision."""
    fields = text.split(" ", 5)
    if len(fields) != 6:
        return None
    state, writer, expires, lease, note, value = fields
    try:
        content = Content(
            state,
            int(expires),
            lease=None if lease == _NONE else int(lease),
            note="" if note == _NONE else note,
            value=value[1:] if value[:1] == _INLINE else None,
        )
        content.is_filed = value == _FILED
    except ValueError:
        return None
    is_known = state in STATES and value[:1] in (_NONE, _INLINE, _FILED)
    return (writer, content) if is_known else None
