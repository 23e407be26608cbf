r"""Turn bytes into an entry and back: the one format of every file that efsstate stores.

    entry   = magic format checksum codec-length meta-length created ttl payload-length
              codec meta payload
    magic   = "\xe5FS\n"        4 bytes; the line feed shows a transfer that translated line ends
    format  = u8                 1
    checksum = 16 bytes          BLAKE2b, keyed with the signing key if there is one, over all bytes
                                 after the checksum, a NUL, and the path below the root
    codec-length = u8            0 to 32
    meta-length  = u16           little endian, like every number here
    created = u64                nanoseconds since the epoch, by the server's clock
    ttl     = u64                milliseconds; 2^64-1 is for ever
    payload-length = u64
    codec   = codec-length bytes, ASCII
    meta    = meta-length bytes  the feature's own (a cache: clear stamp and key)
    payload = payload-length bytes; the file ends with it

docs/format.md is the same as a grammar, and says how a reader treats each defect.
"""

from __future__ import annotations

import struct
from operator import attrgetter

from efsstate.errors import CorruptEntryError, SignatureError, UnknownFormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import TypeVar

    E = TypeVar("E", bound="Entry", default="Entry")

MAGIC = b"\xe5FS\n"
FORMAT = 1
FOREVER = 2**64 - 1
LONGEST_META = 2**16 - 1
_CHECKSUM = 16
_HEAD = struct.Struct(f"<4sB{_CHECKSUM}sBHQQQ")
_BARE = struct.Struct("<BHQQQ")  # the part of it that the checksum covers
UNSEALED = _HEAD.size - _BARE.size  # bytes before that part
COPIED = 8192  # bytes; fewer are copied faster than a view is created
HEADER = _HEAD.size
_nbytes = attrgetter("nbytes")

_blake2b: Any = None
_unkeyed: Any = None  # an unkeyed hash: copying it is a fifth faster than creating another


def blake2b() -> Any:
    """Return the hash of all checksums and digests of the package."""
    global _blake2b
    if _blake2b is None:
        try:
            # hashlib's own, without hashlib's import of OpenSSL
            from _blake2 import blake2b as constructor
        except ImportError:  # another Python than CPython
            from hashlib import blake2b as constructor
        _blake2b = constructor
    return _blake2b


def new_hash(key: bytes | None) -> Any:
    """Return the hash of a checksum, keyed if there is a `key` (at most 64 bytes)."""
    global _unkeyed
    if _unkeyed is None:
        _unkeyed = blake2b()(digest_size=_CHECKSUM)
    # MUT: the-checksum-is-keyed
    return blake2b()(digest_size=_CHECKSUM, key=key) if key else _unkeyed.copy()


def digest(
    key: bytes | None, place: str, *parts: bytes | bytearray | memoryview, hashed: Any = None
) -> bytes:
    """Return the 16-byte checksum of `parts`, one after another, at `place`.

    `hashed` has taken in what comes before them; without it, it is a `new_hash`.
    """
    h = new_hash(key) if hashed is None else hashed
    for part in parts:
        h.update(part)
    # MUT: the-checksum-is-bound-to-the-place
    h.update(f"\0{place}".encode())  # no place has a NUL: where it begins is never in doubt
    return h.digest()  # type: ignore[no-any-return]


class Entry:
    """The content of a file.

    payload  a view of the bytes; a pair of bytes if they were read in two parts
    codec    the codec's name
    meta     the feature's own bytes
    created  seconds since the epoch, by the server's clock
    ttl      seconds, or None for ever
    stat     the file's `os.stat_result`, if its reader asked for it
    """

    __slots__ = ("codec", "created", "meta", "payload", "stat", "ttl")

    def __init__(
        self, payload: Any, codec: str, meta: bytes, created: float, ttl: float | None
    ) -> None:
        self.payload = payload
        self.codec = codec
        self.meta = meta
        self.created = created
        self.ttl = ttl
        self.stat: Any = None


def encode(
    payload: bytes | bytearray | memoryview | list[bytes | bytearray | memoryview],
    created: float,
    *,
    place: str,
    codec: str,
    meta: bytes = b"",
    ttl: float | None,
    key: bytes | None = None,
) -> list[bytes | bytearray | memoryview]:
    """Return the entry as buffers to be written in order: the head, then the payload's own."""
    parts = payload if isinstance(payload, list) else [payload]
    name = codec.encode("ascii")
    ttl_ms = FOREVER if ttl is None else min(round(ttl * 1000), FOREVER - 1)
    sealed = _BARE.pack(
        len(name),
        len(meta),
        max(0, int(created * 1e9)),
        ttl_ms,
        sum(map(_nbytes, map(memoryview, parts))),  # type: ignore[arg-type]
    )
    sealed += name + meta
    return [MAGIC + bytes([FORMAT]) + digest(key, place, sealed, *parts) + sealed, *parts]


def peek(head: bytes | bytearray | memoryview, size: int, path: str) -> tuple[float, float | None]:
    """Return when an entry was created, and its ttl (seconds; None for ever).

    It takes the first `HEADER` bytes and the file's size. The checksum is not verified: this is for
    judging an entry's age, not for using its payload. Raise `CorruptEntryError` or
    `UnknownFormatError`.
    """
    if len(head) < HEADER:
        raise CorruptEntryError(path, f"{len(head)} bytes, shorter than a header")
    magic, fmt, _, codec_length, meta_length, created, ttl, length = _HEAD.unpack_from(head)
    if magic != MAGIC:
        raise CorruptEntryError(path, "not an entry: the first four bytes are wrong")
    if fmt > FORMAT:
        # A newer release's file must not be taken for damage and deleted; a flipped bit here only
        # keeps a file.
        # MUT: a-newer-format-is-left-alone
        raise UnknownFormatError(path, fmt)
    if fmt < FORMAT:
        raise CorruptEntryError(path, f"format {fmt} has never been written")
    whole = HEADER + codec_length + meta_length + length
    if size != whole:
        raise CorruptEntryError(path, f"{size} bytes where its header says {whole}")
    return created / 1e9, None if ttl == FOREVER else ttl / 1000


def labels(head: bytes, path: str) -> tuple[str, bytes, int]:
    """Return the codec, the meta and the whole length, as an entry's first bytes say; unchecked.

    Raise `CorruptEntryError` if `head` is too short to have them.
    """
    if len(head) < HEADER:
        raise CorruptEntryError(path, f"{len(head)} bytes, shorter than a header")
    _, _, _, codec_length, meta_length, _, _, length = _HEAD.unpack_from(head)
    start = HEADER + codec_length + meta_length
    if len(head) < start:
        raise CorruptEntryError(path, f"{len(head)} bytes, shorter than its labels")
    return (
        head[HEADER : HEADER + codec_length].decode("ascii", "replace"),
        head[start - meta_length : start],
        start + length,
    )


def fields(
    data: bytes | bytearray | memoryview,
    place: str,
    key: bytes | None = None,
    rest: bytes = b"",
    hashed: Any = None,
) -> tuple[int, int, int, int] | None:
    """Check every byte of the entry in `data` and `rest`; return None if any is not as it was.

    Return where the meta begins, where the payload begins, when it was created (nanoseconds since
    the epoch) and the ttl (milliseconds, or `FOREVER`). The parameters are those of `decode`.
    """
    size = len(data) + len(rest)
    if size < HEADER:
        return None
    magic, fmt, checksum, codec_length, meta_length, created, ttl, length = _HEAD.unpack_from(data)
    middle = HEADER + codec_length
    start = middle + meta_length
    # MUT: the-length
    if magic != MAGIC or fmt != FORMAT or size != start + length:
        return None
    if hashed is None:
        view = data[UNSEALED:] if size < COPIED else memoryview(data)[UNSEALED:]
        actual = digest(key, place, view, rest)
    else:
        actual = digest(key, place, hashed=hashed)
    # MUT: the-checksum
    if checksum != actual:
        return None
    return middle, start, created, ttl


def decode(
    data: bytes | bytearray | memoryview,
    place: str,
    root: str,
    key: bytes | None = None,
    rest: bytes = b"",
    kind: type[E] = Entry,  # type: ignore[assignment]  # E's default, which mypy does not look at
    hashed: Any = None,
) -> E:
    """Return the entry in `data` and `rest`, every byte checked, as a `kind`.

    It must have been encoded for `place` below `root`. `hashed`, if there is one, is the hash that
    has taken in all but the first `UNSEALED` bytes. Raise `CorruptEntryError` (cut, emptied,
    flipped, or another place's), `SignatureError` (the same, if there is a key: damage and forgery
    can't be distinguished) or `UnknownFormatError` (newer than this release).
    """
    checked = fields(data, place, key, rest, hashed)
    if checked is None:
        raise _fault(data, len(data) + len(rest), f"{root}/{place}", key)
    middle, start, created, ttl = checked
    try:
        codec = str(data[HEADER:middle], "ascii")
    except UnicodeDecodeError:
        raise CorruptEntryError(f"{root}/{place}", "the name of its codec is not ASCII") from None
    view = data if len(data) < COPIED else memoryview(data)
    return kind(
        (data[start:], rest) if rest else view[start:],
        codec,
        data[middle:start] if type(data) is bytes else bytes(data[middle:start]),
        created / 1e9,
        None if ttl == FOREVER else ttl / 1000,
    )


def _fault(
    data: bytes | bytearray | memoryview, size: int, path: str, key: bytes | None
) -> Exception:
    """Return the error that says why `data`, the first of `size` bytes, is refused."""
    try:
        peek(data, size, path)
    except (CorruptEntryError, UnknownFormatError) as error:
        return error
    if key:
        return SignatureError(
            path, "it is damaged, unsigned, signed with another key, or signed for another place"
        )
    return CorruptEntryError(
        path,
        "its checksum does not match: it was changed, or it is signed and EFSSTATE_SIGNING_KEY is"
        " missing here",
    )
