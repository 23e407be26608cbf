"""The codec keeps a value exactly or refuses it, and no bytes make it do anything else."""

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import os
import pathlib
import pickle
import random
import sys
import types
import uuid
import zoneinfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.mount.alarms import at_each_moment

from efsstate import EncodeError
from efsstate.format import codec


class Color(enum.Enum):
    RED = 1


class PickleByHand:
    dumps = staticmethod(pickle.dumps)
    loads = staticmethod(pickle.loads)


@pytest.mark.parametrize("name", ["msgpack", "pickle", PickleByHand])
@pytest.mark.parametrize("value", [7, {"a": (1, dt.date(2026, 1, 2), np.arange(3))}])
def test_what_a_signal_handler_raises_is_no_damage(name, value):
    """The bytes are a value, and the value can be stored: the handler's exception goes on."""
    _, dumps, loads = codec.resolve_codec(name, signed=True)
    encoded = dumps(value)
    payload = bytes(encoded) if not isinstance(encoded, list) else b"".join(encoded)
    for act in (lambda: dumps(value), lambda: loads(payload)):
        calls, ends = 0, 0

        def run(act=act):
            nonlocal calls, ends
            calls += 1
            act()
            ends += 1

        moments = list(at_each_moment(run, f"{os.sep}efsstate{os.sep}format"))
        assert moments and (calls, ends) == (len(moments) + 1, 1)


class Level(enum.IntEnum):
    LOW = 1


class Bits(enum.IntFlag):
    A = 1
    B = 2


@dataclasses.dataclass
class Box:
    a: int
    b: list
    total: int = dataclasses.field(init=False, default=7)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    a: int
    b: tuple = ()


@dataclasses.dataclass
class Child(Box):
    c: str = ""


class Outer:
    @dataclasses.dataclass
    class Inner:
        x: int


Pair = collections.namedtuple("Pair", "x y")  # noqa: PYI024 - what is tested
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
D = dt.datetime


def packed(value, kind=bytes):
    made = codec.dumps(value)
    return kind(b"".join(made)) if isinstance(made, list) else kind(made)


def same(a, b):
    """Equal, and of equal types all the way down, signs and representations too."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, (np.str_, np.bytes_)):
        plain = (
            str.__str__ if isinstance(a, str) else bytes
        )  # numpy's own comparison drops the zeros at the end
        return plain(a) == plain(b) and a.dtype == b.dtype
    if isinstance(a, np.void):
        return (
            a.dtype == b.dtype
            and a.tobytes() == b.tobytes()
            and a.flags.writeable == b.flags.writeable
        )
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(
            same(p, q) for p, q in zip(a.items(), b.items(), strict=True)
        )
    if isinstance(a, (set, frozenset)):
        return a == b and sorted(map(repr, a)) == sorted(map(repr, b))
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    return repr(a) == repr(b)


RECORD = np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")])[0]
VALUES = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63 - 1,
    2**63,
    2**64 - 1,
    2**64,
    -(2**63),
    -(2**63) - 1,
    2**1000,
    -(2**1000),
    0.0,
    -0.0,
    1.5,
    float("inf"),
    float("nan"),
    1e-300,
    "",
    "é",
    "\0",
    "x" * 70000,
    b"",
    b"\xff",
    b"x" * 70000,
    bytearray(b"abc"),
    bytearray(),
    1 + 2j,
    complex("nan"),
    complex(-0.0, 0.0),
    [],
    (),
    {},
    set(),
    frozenset(),
    [()],
    ([],),
    [[1, (2, {3})]],
    {1, "a", (1, 2), frozenset({4})},
    frozenset({frozenset()}),
    ((((),),),),
    {1: 2, "1": 3, None: 4, 1.5: 5, b"x": 6, (1, (2,)): 7, frozenset({1}): 8, 2**70: 9},
    {"z": 1, "a": 2, "m": 3},
    {Color.RED: Pair(1, [2])},
    decimal.Decimal("1.10"),
    decimal.Decimal("-0E+5"),
    decimal.Decimal("NaN"),
    decimal.Decimal("sNaN12"),
    decimal.Decimal("-Infinity"),
    decimal.Decimal("1E+999999"),
    uuid.UUID(int=5),
    uuid.UUID(int=5, is_safe=uuid.SafeUUID.unsafe),
    uuid.UUID(int=5, is_safe=uuid.SafeUUID.safe),
    dt.date(1, 1, 1),
    dt.date.max,
    dt.time(1, 2, 3, 4, fold=1),
    dt.time(1, tzinfo=dt.UTC),
    dt.timedelta.min,
    dt.timedelta(-1, 5, 6),
    D(2026, 1, 2),
    D(2026, 1, 2, 3, 4, 5, 6, fold=1),
    D(2026, 1, 2, tzinfo=dt.UTC),
    D(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN),
    D(2026, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=-3, microseconds=7), "here")),
    D(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(0))),
    D(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(0), "GMT")),
    pathlib.PurePosixPath("a/b"),
    pathlib.Path("/x"),
    pathlib.PureWindowsPath("C:\\x"),
    pathlib.Path(os.fsdecode(b"bad\xff")),
    Color.RED,
    Level.LOW,
    Bits.A,
    Pair(1, [2]),
    Pair(Pair(1, 2), None),
    Box(1, [Frozen(2, (3,))]),
    Child(1, [], "c"),
    Outer.Inner(1),
    {"k": [Box(1, [2])]},
    np.int8(-3),
    np.uint64(2**64 - 1),
    np.float16(1.5),
    np.float64(-0.0),
    np.complex64(1j),
    np.bool_(True),
    np.str_("é"),
    np.bytes_(b"x\0y"),
    np.str_(""),
    np.bytes_(b""),
    np.str_("a\0"),
    np.bytes_(b"a\0"),
    np.void(b"ab\0"),
    np.void(b""),
    RECORD,
    np.datetime64("2026-01-01T00:00:00", "ns"),
    np.timedelta64(5, "D"),
    np.datetime64("NaT", "s"),
    np.longdouble(1) / 3,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:40])
def test_what_is_accepted_comes_back_exactly(value):
    for wrap in (lambda v: v, lambda v: [v], lambda v: (v, {"k": v})):
        back = codec.loads(packed(wrap(value)))
        assert same(back, wrap(value)), back


ARRAYS = [
    np.arange(10),
    np.zeros((3, 4)),
    np.asfortranarray(np.arange(12).reshape(3, 4)),
    np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    np.arange(10)[::-2],
    np.array(5),
    np.zeros(0),
    np.zeros((0, 3)),
    np.zeros((2, 0, 2**40)),
    np.array(["a", "bcd"]),
    np.array([b"x", b"yz"]),
    np.array([1, 2], ">i4"),
    np.array([True, False]),
    np.array(["2026-01-01", "NaT"], "M8[ns]"),
    np.array([1j]),
    np.arange(5).astype("f2"),
    np.array([""]),
    np.array([(1, (2.0, 3.0), b"z")], [("a", "i4"), ("b", "f8", (2,)), ("c", "S3")]),
    np.array([((1, 2),)], [("o", [("x", "u1"), ("y", ">u2")])]),
    np.zeros((1000, 1000)),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}-{a.shape}"[:40])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_arrays_come_back_exactly_and_writable(array, kind):
    back, more = codec.loads(packed((array, [array, {"k": array}]), kind))
    for one in (back, more[0], more[1]["k"]):
        assert same(one, array) and one.flags.writeable and one.flags.aligned
        assert one.flags.f_contiguous == array.flags.f_contiguous or not array.flags.c_contiguous
    if array.size and array.dtype != "?" and array.nbytes < 1000:
        before = more[0].tobytes()
        back.reshape(-1).view("u1")[:] ^= 255
        assert more[0].tobytes() == before


def test_an_array_is_copied_neither_into_nor_out_of_its_buffer():
    array = np.arange(1_000_000)
    parts = codec.dumps({"a": array})
    assert any(
        isinstance(part, memoryview) and np.shares_memory(np.frombuffer(part, "u1"), array)
        for part in parts
    )
    buffer = packed({"a": array}, bytearray)
    assert np.shares_memory(codec.loads(buffer)["a"], np.frombuffer(buffer, "u1"))
    frozen = bytes(buffer)
    assert not np.shares_memory(codec.loads(frozen)["a"], np.frombuffer(frozen, "u1"))


def test_a_structured_scalar_is_the_callers_to_change():
    back = codec.loads(packed([RECORD, RECORD]))
    back[0]["a"] = 7
    assert (back[0]["a"], back[1]["a"], RECORD["a"]) == (7, 1, 1)


def refusals():
    class Number(int):
        pass

    class Text(str):  # noqa: SLOT000 - a plain subclass is what is tested
        pass

    class Mine(dict):
        pass

    class Items(list):
        pass

    @dataclasses.dataclass
    class Local:
        x: int

    @dataclasses.dataclass
    class Batch(collections.deque):
        name: str

    @dataclasses.dataclass
    class FromDict(dict):
        x: int = 0

    extra = Box(1, [])
    extra.more = 1
    extended = type("Pair", (Pair,), {})(1, 2)
    extended.more = 1
    missing = Box(1, [])
    del missing.a
    loop = []
    loop.append(loop)
    deep = []
    for _ in range(1000):
        deep = [deep]

    class Zone(dt.tzinfo):
        pass

    class Sub(np.ndarray):
        pass

    return [
        Number(1),
        Text("a"),
        Mine(),
        Items(),
        object(),
        lambda: 1,
        int,
        open,
        loop,
        deep,
        memoryview(b"x"),
        range(3),
        iter([]),
        collections.Counter("a"),
        collections.OrderedDict(),
        Local(1),
        FromDict(),
        extra,
        missing,
        dt.datetime(2026, 1, 1, tzinfo=Zone()),
        extended,
        Batch("a"),
        np.array([object()]),
        np.ma.array([1]),
        np.zeros(3).view(Sub),
        ValueError("x"),
        sys,
        types.SimpleNamespace(a=1),
        {1: object()},
        {(1, Number(2)): 3},
    ]


@pytest.mark.parametrize("value", refusals(), ids=lambda value: type(value).__name__)
def test_what_would_not_come_back_as_it_is_is_refused(value):
    for wrapped in (value, [value], (value,), {"k": value}):
        with pytest.raises(EncodeError):
            codec.dumps(wrapped)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.decimals(),
    st.uuids(),
    st.dates(),
    st.datetimes(),
    st.times(),
    st.timedeltas(),
    st.complex_numbers(),
)
keys = st.one_of(st.text(), st.integers(), st.binary(), st.tuples(st.integers(), st.text()))
nested = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.dictionaries(keys, inner),
        st.sets(keys),
        st.frozensets(keys),
        st.tuples(inner, st.binary().map(bytearray)),
    ),
    max_leaves=30,
)


@settings(max_examples=300, deadline=None)
@given(nested)
def test_any_nesting_comes_back_exactly(value):
    assert same(codec.loads(packed(value)), value)


def read(data):
    try:
        return codec.loads(data)
    except ValueError:
        return None


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_value_error(data):
    read(data)
    read(b"\xc1" + data)
    for code in range(1, 19):
        read(b"\xc8" + len(data).to_bytes(2, "big") + bytes([code]) + data)


@pytest.mark.parametrize("place", ["alone", "in a list", "beside an array"])
def test_a_timestamp_of_messagepack_is_a_plain_number(place):
    """No hook sees that extension. We write none; a class's object could not be kept again."""
    stamp = b"\xd6\xff\x00\x00\x00\x3c"
    if place == "beside an array":
        message = b"\x92" + stamp + b"\x01"
        data = b"\xc1" + len(message).to_bytes(4, "little") + message
    else:
        data = stamp if place == "alone" else b"\x92" + stamp + b"\x01"
    value = codec.loads(data)
    seconds = value if place == "alone" else value[0]
    assert seconds == 60 and type(seconds) is float
    assert codec.loads(codec.dumps(value)) == value


def test_no_flip_or_cut_raises_anything_but_value_error():
    choose = random.Random(1)
    for value in (*VALUES, *ARRAYS):
        data = packed([value, Box(1, [Pair(1, 2)]), Color.RED])
        data = data[:3000]
        for _ in range(60):
            broken = bytearray(data)
            broken[choose.randrange(len(broken))] ^= 1 << choose.randrange(8)
            read(bytes(broken))
            read(data[: choose.randrange(len(data))])


def test_bombs_are_bounded():
    import tracemalloc

    def ext(code, body):
        return b"\xc9" + len(body).to_bytes(4, "big") + bytes([code]) + body

    tower = b"\xc0"
    for _ in range(1000):
        tower = ext(1, b"\x91" + tower)
    bombs = [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\x91" * 100_000 + b"\xc0",
        tower,
        ext(13, b"\x93\xa3<f8\x91\xcf" + (2**60).to_bytes(8, "big") + b"\xc2"),
        ext(13, b"\x93\xa3<f8\x92\xcf" + (2**60).to_bytes(8, "big") + b"\x00\xc2"),
        ext(13, b"\x93\xa2|O\x91\x01\xc2"),
        ext(14, b"\x92\xa2|O\xc4\x08" + bytes(8)),
        ext(13, b"\x93\xa3<U9\x91\x01\xc2"),
        b"\xc1\xff\xff\xff\xff",
        b"\xc1",
        b"",
    ]
    for bomb in bombs:
        tracemalloc.start()
        with pytest.raises(ValueError, match="can't be read"):  # noqa: PT012 - the last answer
            value = codec.loads(bomb)
            # An empty array of an absurd shape holds nothing.
            assert getattr(value, "nbytes", 1) == 0
            raise ValueError("can't be read")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 50_000_000


def test_a_dataclass_is_rebuilt_without_its_code_from_its_fields(monkeypatch):
    ran = []
    module = types.ModuleType("somewhere")
    monkeypatch.setitem(sys.modules, "somewhere", module)

    def define(fields):
        def __init__(self, *args):  # noqa: N807 - it becomes a method
            ran.append("init")
            for (name, *_), value in zip(fields, args, strict=True):
                object.__setattr__(self, name, value)

        space = {
            "__module__": "somewhere",
            "__setattr__": lambda *a: ran.append("set"),
            "__new__": lambda c, *a: ran.append("new") or object.__new__(c),
            "__post_init__": lambda s: ran.append("post"),
            "__init__": __init__,
        }
        module.Thing = dataclasses.make_dataclass("Thing", fields, namespace=space, init=False)
        module.Thing.__module__, module.Thing.__qualname__ = "somewhere", "Thing"
        return module.Thing

    data = packed(define([("a", int), ("b", int)])(1, 2))
    ran.clear()
    back = codec.loads(data)
    assert (back.a, back.b) == (1, 2) and type(back) is module.Thing and ran == []
    for fields in (
        [("a", int)],
        [("a", int), ("c", int)],
        [("a", int), ("b", int), ("c", int, dataclasses.field(default=1))],
    ):
        define(fields)
        with pytest.raises(ValueError, match="fields have changed"):
            codec.loads(data)
    module.Thing = os.system
    with pytest.raises(ValueError, match="not imported"):
        codec.loads(data)
    del sys.modules["somewhere"]
    with pytest.raises(ValueError, match="not imported"):
        codec.loads(data)


def test_nothing_named_in_the_bytes_is_imported_or_called(monkeypatch):
    lazy = types.ModuleType("lazy")
    lazy.__getattr__ = lambda name: pytest.fail("an attribute hook ran")
    monkeypatch.setitem(sys.modules, "lazy", lazy)
    import msgpack

    for code in (15, 16, 17):
        for module, name in (
            ("lazy", "Thing"),
            ("antigravity", "x"),
            ("os", "system"),
            ("builtins", "int"),
            ("os", "path.join.x"),
            ("", ""),
            (1, 2),
        ):
            body = msgpack.packb([module, name, ["a"], [1]] if code < 17 else [module, name, "a"])
            with pytest.raises(ValueError, match="can't be read"):
                codec.loads(msgpack.packb(msgpack.ExtType(code, body)))
    assert "antigravity" not in sys.modules


def test_numpy_is_not_imported_unless_the_data_needs_it():
    code = (
        "import sys\nfrom efsstate.format import codec\n"
        "assert codec.loads(codec.dumps([1, (2,), {3}])) == [1, (2,), {3}]\n"
        "assert 'numpy' not in sys.modules"
    )
    import subprocess

    subprocess.run([sys.executable, "-c", code], check=True)


# Which codec


class Reverse:
    name = "reverse"

    def dumps(self, value):
        return value[::-1]

    def loads(self, data):
        assert isinstance(data, bytes)
        return data[::-1]


def test_codecs_are_chosen_by_name_or_are_objects(caplog):
    import json

    name, dumps, loads = codec.resolve_codec(Reverse())
    assert (
        name == "x-reverse" and bytes(dumps(b"ab")) == b"ba" and loads(memoryview(b"ba")) == b"ab"
    )
    name, dumps, loads = codec.resolve_codec(json)
    assert name == "x-json" and loads(dumps({"a": [1]})) == {"a": [1]}
    with pytest.raises(EncodeError, match="x-json"):
        dumps(object())
    with pytest.raises(ValueError, match="can't be read"):
        loads(b"{")
    for bad in ("json", None, 5, object()):
        with pytest.raises(TypeError, match="codec"):
            codec.resolve_codec(bad)


def test_pickle_is_warned_of_once_unless_signed(caplog):
    _, dumps, loads = codec.resolve_codec("pickle", signed=True)
    assert not caplog.records
    assert loads(dumps(collections.Counter("aab"))) == collections.Counter("aab")
    for _ in range(3):
        codec.resolve_codec("pickle")
    assert len(caplog.records) == 1 and "EFSSTATE_SIGNING_KEY" in caplog.text
    with pytest.raises(EncodeError):
        dumps(lambda: 1)
    with pytest.raises(ValueError, match="can't be read"):
        loads(b"nonsense")
