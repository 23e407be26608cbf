"""The entry format: what was encoded comes back, and nothing else ever does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from efsstate.errors import CorruptEntryError, SignatureError, UnknownFormatError
from efsstate.format import entry

PLACE, PATH = "cache/ns/a/ab", "/r/cache/ns/a/ab"


def made(payload=b"payload of some length", *, place=PLACE, key=None, ttl=60.0, meta=b"meta"):
    head, body = entry.encode(
        payload, place=place, codec="msgpack", meta=meta, created=1e9, ttl=ttl, key=key
    )
    return bytes(head) + bytes(body)


@given(
    st.binary(max_size=300),
    st.binary(max_size=40),
    st.sampled_from(["", "msgpack", "x" * 32]),
    st.none() | st.integers(0, 10**9).map(lambda ms: ms / 1000),
    st.none() | st.binary(min_size=1, max_size=64),
)
def test_round_trip(payload, meta, codec, ttl, key):
    head, body = entry.encode(
        payload, place=PLACE, codec=codec, meta=meta, created=1e9, ttl=ttl, key=key
    )
    back = entry.decode(head + body, place=PLACE, root=PATH, key=key)
    assert (bytes(back.payload), back.meta, back.codec, back.created) == (payload, meta, codec, 1e9)
    assert back.ttl == ttl


def test_the_payload_is_not_copied():
    payload = bytearray(100)
    assert entry.encode(payload, place=PLACE, codec="", created=0, ttl=None)[1] is payload


@pytest.mark.parametrize("key", [None, b"k" * 32])
def test_every_single_bit_flip_is_rejected(key):
    data = made(key=key)
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises((CorruptEntryError, UnknownFormatError)):
            entry.decode(flipped, place=PLACE, root=PATH, key=key)


def test_every_cut_and_every_addition_is_rejected():
    data = made()
    for length in range(len(data)):
        with pytest.raises(CorruptEntryError):
            entry.decode(data[:length], place=PLACE, root=PATH)
    for tail in (b"\0", data):
        with pytest.raises(CorruptEntryError):
            entry.decode(data + tail, place=PLACE, root=PATH)


def test_zeroed_runs_are_rejected():
    data = made(payload=bytes(range(1, 256)) * 20)
    for start in range(0, len(data), 97):
        zeroed = bytearray(data)
        zeroed[start : start + 97] = bytes(len(zeroed[start : start + 97]))
        with pytest.raises(CorruptEntryError):
            entry.decode(zeroed, place=PLACE, root=PATH)


def test_a_newer_format_is_told_apart_from_damage():
    data = bytearray(made())
    data[4] = 2
    with pytest.raises(UnknownFormatError, match="upgrade"):
        entry.decode(data, place=PLACE, root=PATH)


def test_an_entry_moved_to_another_place_is_refused():
    with pytest.raises(CorruptEntryError, match="checksum"):
        entry.decode(made(), place="cache/ns/a/ac", root=PATH)


@pytest.mark.parametrize("key", [b"other" * 6, None])
def test_with_a_key_unsigned_or_foreign_entries_are_refused(key):
    with pytest.raises(SignatureError):
        entry.decode(made(key=key), place=PLACE, root=PATH, key=b"mine" * 8)
    with pytest.raises(CorruptEntryError):
        entry.decode(made(key=b"mine" * 8), place=PLACE, root=PATH, key=key)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_never_decode(data):
    with pytest.raises((CorruptEntryError, UnknownFormatError)):
        entry.decode(data, place=PLACE, root=PATH)
