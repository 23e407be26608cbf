"""Every parser of bytes or names from the mount: the errors it may raise, and first inputs.

Where a checksum would refuse what is tried, it is put right first: without a signing key whoever
may write can do so too.
"""

import datetime as dt
import decimal
import http
import json
import os
import pathlib
import re
import shutil
import struct
import tempfile
import uuid

import numpy as np

from efsstate.checkpoints import claimant, protocol, saves
from efsstate.errors import CorruptEntryError, EncodeError, UnknownFormatError
from efsstate.eviction import policy
from efsstate.format import codec, entry, layout
from efsstate.modelstore import manifest
from efsstate.mount import links as sealing
from efsstate.mount.files import Mount
from tests.torture import MEMORY

PARSERS = {}
_places = {}


def parser(*, raises, seeds):
    """Put the function in the table: it takes bytes, and may raise `raises` alone."""

    def note(function):
        PARSERS[function.__name__] = (function, raises, seeds)
        return function

    return note


def attempt(name, data):
    """Give `data` to the parser; what is not documented comes out."""
    function, raises, _ = PARSERS[name]
    try:
        function(data)
    except raises:
        pass


def _mount():
    """A root of this process's own, in memory where that can be."""
    if os.getpid() not in _places:
        path = tempfile.mkdtemp(prefix="efsstate-parsers-", dir=MEMORY)
        os.chmod(path, 0o700)
        _places.clear()
        _places[os.getpid()] = Mount(path)
        import atexit

        atexit.register(shutil.rmtree, path, ignore_errors=True)
    return _places[os.getpid()]


VALUES = [
    None,
    True,
    7,
    -1,
    2**70,
    1.5,
    "text",
    b"bytes",
    (1, 2),
    [1, [2, {"a": {1, 2}}]],
    frozenset([1]),
    1j,
    bytearray(b"x"),
    decimal.Decimal("1.50"),
    uuid.UUID(int=7),
    dt.date(2026, 1, 2),
    dt.time(1, 2, 3),
    dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
    dt.timedelta(days=1),
    np.arange(6).reshape(2, 3),
    np.float32(1.5),
    np.zeros(2, [("a", "<i4"), ("b", "<f8", (2,))]),
    {"shortest": 1.0, "longest": None},
    [()],
]


def packed(value):
    made = codec.dumps(value)
    return b"".join(map(bytes, made)) if isinstance(made, list) else bytes(made)


def _model():
    import pydantic

    return pydantic.create_model("Model", __module__=__name__, x=(int, ...), names=(list[str], []))


def _slotted():
    import attrs

    return attrs.make_class("Slotted", ["x", "y"])


def _image():
    from PIL import Image

    return Image.new("RGB", (3, 2), (1, 2, 3))


def _frame(library):
    frames = __import__(library)
    __import__("pyarrow")
    return frames.DataFrame({"a": [1, None], "b": ["x", "y"]})


def _zoned():
    from dateutil import tz

    return dt.datetime(2026, 7, 2, tzinfo=tz.gettz("Europe/Berlin"))


def of_libraries():
    """Return a value of each kind that has a decoder of its own, as far as its library is here."""
    values = [
        pathlib.PurePosixPath("/a/b"),
        http.HTTPStatus.OK,
        re.RegexFlag.I | re.RegexFlag.M,
        "lone \ud83d surrogate",
        np.longdouble(1) / 3,
        np.zeros(2, np.dtype((np.record, [("a", "<i4")]))),
        np.zeros(2, np.dtype({"names": ["a"], "formats": ["<i4"], "offsets": [4]})),
    ]
    lazy = [_image, lambda: _frame("pandas"), lambda: _frame("polars"), _zoned]
    lazy += [lambda: Model(x=1, names=["a"]), lambda: Slotted(1, [2])]
    for make in lazy:
        try:
            values.append(make())
        except (ImportError, NameError):
            continue
    return values


try:
    Model, Slotted = _model(), _slotted()
except ImportError:
    pass


_PAYLOADS = [packed(value) for value in VALUES]
_PLACE = "cache/n/a/x"
_ENTRIES = [
    b"".join(
        map(
            bytes,
            entry.encode(body, place=_PLACE, codec="msgpack", meta=b"meta", created=1.8e9, ttl=ttl),
        )
    )
    for body, ttl in zip(_PAYLOADS, [None, 1.0, 3600.0] * 10, strict=False)
]


@parser(raises=(CorruptEntryError, UnknownFormatError), seeds=_ENTRIES)
def entry_decode(data):
    entry.decode(data, place=_PLACE, root="p")


@parser(raises=(CorruptEntryError, UnknownFormatError), seeds=_ENTRIES)
def entry_sealed(data):
    """With the checksum put right: what is behind it is looked at too."""
    data = bytearray(data)
    if len(data) >= entry.HEADER:
        start = entry.UNSEALED
        data[start - entry._CHECKSUM : start] = entry.digest(None, _PLACE, bytes(data[start:]))
    found = entry.decode(data, place=_PLACE, root="p")
    assert len(found.payload) <= len(data)
    entry.peek(bytes(data[: entry.HEADER]), len(data), "p")
    entry.labels(bytes(data[:200]), "p")


@parser(raises=CorruptEntryError, seeds=_ENTRIES)
def entry_labels(data):
    entry.labels(data, "p")


@parser(raises=(CorruptEntryError, UnknownFormatError), seeds=_ENTRIES)
def entry_peek(data):
    entry.peek(data[: entry.HEADER], len(data), "p")


@parser(raises=ValueError, seeds=_PAYLOADS)
def codec_loads(data):
    codec.loads(data)


@parser(raises=ValueError, seeds=_PAYLOADS)
def codec_loads_buffer(data):
    codec.loads(bytearray(data))


@parser(raises=ValueError, seeds=[packed(value) for value in of_libraries()])
def codec_of_libraries(data):
    """Frames, images, models and the like: a damaged one is refused, and crashes no library."""
    codec.loads(data)


@parser(raises=ValueError, seeds=_PAYLOADS)
def codec_again(data):
    """What was read can be kept again, and is as long then (a set has no order of its own)."""
    value = codec.loads(data)
    try:
        again = codec.dumps(value)
    except EncodeError:
        return
    made = b"".join(map(bytes, again)) if isinstance(again, list) else bytes(again)
    assert len(packed(codec.loads(made))) == len(made)


_FOLDER = layout.checkpoint_folder("job")


def _head():
    """The head of a save as the code writes it."""
    save = saves.Save((7, 1))
    save.behind, save.position, save.state = [(5, 1)], "here", []
    return saves.pack(_mount(), _FOLDER, save)[0][:-16]


_TAIL = packed([None, "result"])


@parser(raises=(CorruptEntryError, UnknownFormatError), seeds=[_head(), *_PAYLOADS])
def generation_head(data):
    """The head of a save, its digest put right; what it gives is what the code goes on with."""
    meta = data + entry.digest(None, f"{_FOLDER}/7-1", data)
    payload = memoryview(struct.pack("<I", len(_TAIL)) + _TAIL + b"\xc0")
    found = saves.unpack(
        _mount(), _FOLDER, (7, 1), entry.Entry(payload, "msgpack", meta, 1.0, None)
    )
    assert type(found.saves) is int and type(found.items) is int and type(found.schema) is int
    assert type(found.finished) is bool and type(found.empty) is bool and type(found.shown) is str
    assert all(type(e) is int and type(n) is int for e, n in found.behind)


@parser(
    raises=CorruptEntryError, seeds=[struct.pack("<I", len(_TAIL)) + _TAIL + b"\xc0", *_PAYLOADS]
)
def generation_payload(data):
    head = _head()
    meta = head + entry.digest(None, f"{_FOLDER}/7-1", head)
    saves.unpack(
        _mount(), _FOLDER, (7, 1), entry.Entry(memoryview(data), "msgpack", meta, 1.0, None)
    )


@parser(raises=(CorruptEntryError, UnknownFormatError), seeds=_ENTRIES)
def generation_glance(data):
    mount = _mount()
    mount.make(_FOLDER)
    with open(f"{mount.path}/{_FOLDER}/7-1", "wb") as file:
        file.write(data)
    saves.read_header(mount, _FOLDER, (7, 1))


@parser(
    raises=(CorruptEntryError, FileNotFoundError),
    seeds=[b"- x", b"7-1 " + b"0" * 32, b'{"host":"h","since":1e999}', b"[1]"],
)
def notes(data):
    """The text of a link, as it is and with its checksum corrected.

    As a base, and as a claimant's.
    """
    text = data.decode("utf-8", "surrogateescape").replace("\0", "") or "x"
    text = os.fsencode(text)[:3000].decode("utf-8", "surrogateescape")
    mount = _mount()
    mount.make(_FOLDER)
    folder = protocol.CheckpointFolder(mount, _FOLDER)
    for name in ("b7", "e7"):
        for made in (text, f"{text} {sealing._digest(mount, _FOLDER, name, text)}"):
            try:
                os.unlink(f"{mount.path}/{_FOLDER}/{name}")
            except FileNotFoundError:
                pass
            os.symlink(made, f"{mount.path}/{_FOLDER}/{name}")
            claimant.sentence(claimant.read(folder, 7))
            if name == "b7":
                try:
                    epoch, number = folder.base(7)
                except CorruptEntryError:
                    continue
                assert (epoch, number) == (0, 0) or epoch > 0 < number


@parser(
    raises=CorruptEntryError,
    seeds=[
        packed(
            {"name": "n", "shortest": 1.0, "longest": None, "max_bytes": 5, "max_entries": None}
        ),
        *_PAYLOADS,
    ],
)
def policy_parse(data):
    found = policy._parse(data, "n", "p")
    assert 0 <= found.shortest < float("inf") and type(found.name) is str
    found.judge(os.stat("/"), 1e9, None, None)
    found.is_expired(0.0, 1.0, 1e9)


def _shelf(name, data):
    """A cache whose POLICY is `data`, sealed: it must go on, whatever it says."""
    from efsstate import Cache

    mount = _mount()
    mount.write_entry("cache/n", name, data, codec="msgpack")
    cache = Cache("n", root=mount.path)
    cache.set("k", 5, ttl=7)
    assert cache.get("k") in (5, None)
    cache.clear()
    cache.set("k", 6)
    assert cache.get("k") in (6, None)


@parser(raises=(), seeds=_PAYLOADS)
def cache_policy(data):
    _shelf(layout.POLICY, data)


@parser(
    raises=(),
    seeds=[b"CLEARED.%d.%s" % (n, b"0" * 32) for n in (0, 1, 2**62, 2**64)]
    + [
        b"CLEARED",
        b"CLEARED..",
        b"CLEARED.01." + b"0" * 32,
        "CLEARED.\u0663.".encode() + b"0" * 32,
    ],
)
def cache_cleared(data):
    """Any names in a listing: only what we could have made is a mark, and its number is one."""
    names = data.decode(errors="surrogateescape").split("/")
    for name, tag, number in layout.cleared_marks(names):
        assert name.startswith(layout.cleared_mark(number, tag) + ".") and 0 <= number < 10**19


_MANIFEST = manifest.Manifest("v1", {"a/b": (3, "0" * 64)}, ["empty"], single=False)


@parser(
    raises=CorruptEntryError,
    seeds=[
        _MANIFEST.encoded,
        b'{"version":"v","single":true,"files":{"x":[1,"%s"]},"folders":[]}' % (b"f" * 64),
        b"[" * 500,
    ],
)
def manifest_decode(data):
    found = manifest.decode(entry.Entry(memoryview(data), "json", b"", 1.0, None), "p")
    for name in [*found.files, *found.folders]:
        assert os.path.normpath(f"/v/{name}").startswith("/v/") and "\0" not in name, name
    assert "/" not in found.version and found.version[0] != "."
    assert found.size >= 0 and found.content
    json.loads(found.encoded)


@parser(
    raises=(),
    seeds=[
        b"e5",
        b"b123",
        b"5-7",
        b"s3",
        b"d3.abc",
        b"%2eabc~00",
        b"e" + b"9" * 39,
        b"1_0-2",
        "e٣".encode(),
        b"..",
        b"a--b",
    ],
)
def names(data):
    """Names found in listings: whatever they are, they are ours as we make them, or nobody's."""
    name = data.replace(b"/", b"").replace(b"\0", b"")[:255].decode("utf-8", "surrogateescape")
    if not name:
        return
    claim = layout.parse_claim(name)
    if claim is not None:
        made = layout.generation_name(*claim[1:]) if claim[0] == "g" else f"{claim[0]}{claim[1]}"
        assert made == name and claim[1] > 0, name
    shard = layout.parse_shard(name)
    assert shard is None or shard[1] >= 0
    (
        layout.is_component(name),
        layout.readable(name),
        layout.model_name(name),
        layout.is_digest(name),
    )
    layout.is_temporary(name), layout.is_foreign_nfs(name)
    mark = layout.sweep_mark(f"cache/{name}")
    assert "/" not in mark and len(os.fsencode(mark)) <= 255 and mark not in (".", ".."), mark


@parser(
    raises=ValueError,
    seeds=[b"import/2026", b"..", b"UPPER", b"\xff", "name ü".encode(), b"a" * 300],
)
def users_names(data):
    """Names that a user or an event gives: one path component each, and none of ours."""
    name = data.decode("utf-8", "surrogateescape")
    made = layout.component(name)
    assert (
        "/" not in made
        and made not in (".", "..")
        and made[0] != "."
        and 0 < len(made.encode()) <= 255
    )
    assert layout.is_component(made)
    layout.readable(made)
    folder = layout.model_component(name)
    assert "/" not in folder and folder[0] != "." and layout.model_name(folder) == name
