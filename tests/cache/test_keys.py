"""Keys: the same call gives the same digest everywhere, different calls never do."""

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import itertools
import os
import pathlib
import shutil
import subprocess
import sys
import typing
import uuid
import zoneinfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import efsstate
from efsstate import cached, register
from efsstate.cache import keys
from efsstate.cache.signature import signature_of

KEYER = keys.KeyBuilder("test", None)


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Bits(enum.Flag):
    A = 1
    B = 2


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


@dataclasses.dataclass
class Other:
    x: int
    y: int = 0


class Level(enum.Enum):
    LOW = 1


def local(value, *names):
    """Classes of one name and place: an enum, a dataclass and a namedtuple."""

    class Kind(enum.Enum):
        A = value

    return (
        Kind.A,
        dataclasses.make_dataclass("Made", names)(1, 2),
        collections.namedtuple("Tuple", names)(1, 2),  # noqa: PYI024
    )


@pytest.mark.parametrize("index", range(3))
def test_local_classes_of_one_name_are_refused(index):
    """Another class made at the same place would get the results of the first."""
    for instance in (local(1, "x", "y")[index], local(2, "y", "x")[index]):
        with pytest.raises(TypeError, match="not to be found under that name"):
            KEYER.digest(instance)


def holding(thing, **held):
    vars(thing).update(held)
    return thing


class Tagged(collections.namedtuple("Tagged", "a b")):  # noqa: PYI024, SLOT002 - it holds more
    @functools.cached_property
    def total(self):
        return self.a + self.b


@dataclasses.dataclass
class Cell(typing.Generic[typing.TypeVar("T")]):
    a: int


@dataclasses.dataclass
class Sized:
    a: int
    limit: typing.ClassVar = object()
    start: dataclasses.InitVar = object()  # noqa: RUF009 - it is no field

    @functools.cached_property
    def twice(self):
        return 2 * self.a


Pair = collections.namedtuple("Pair", "a b")  # noqa: PYI024 - both kinds are keys


class Twin(typing.NamedTuple):
    a: int
    b: int


LARGE = 1 << 17

TRIPLE = np.array([(1, 2, 3), (4, 5, 6)], [("a", "i4"), ("b", "i4"), ("c", "i4")])
OVERLAPPING = np.dtype({"names": ["a", "b"], "formats": ["i4", "i2"], "offsets": [0, 2]})
RECORDS = [
    TRIPLE,
    TRIPLE[["a", "c"]],
    TRIPLE[["c", "a"]],
    TRIPLE[::-1],
    TRIPLE[["c", "a"]][::-1],
    TRIPLE[["c", "a"]][0],
    np.array([(1, 2)], OVERLAPPING),
    np.array([(1, 3)], OVERLAPPING),
]

DIFFERENT = [
    None,
    True,
    False,
    0,
    1,
    -1,
    255,
    256,
    2**63,
    2**64,
    2**64 - 1,
    -(2**63),
    2**200,
    1.0,
    0.0,
    -0.0,
    float("inf"),
    1j,
    1 + 0j,
    "",
    "1",
    "a",
    "ab",
    "\ud800",
    "None",
    b"",
    b"1",
    b"a",
    bytearray(b"a"),
    memoryview(b"a"),
    memoryview(bytearray(b"abcd")).cast("H"),
    [],
    (),
    {},
    set(),
    frozenset(),
    [1],
    (1,),
    [[1]],
    [(1,)],
    [1, 1],
    {1},
    frozenset({1}),
    {1: 2},
    {2: 1},
    {"a": 1, "b": 2},
    {"a": 2, "b": 1},
    ("a b", "c"),
    ("a", "b c"),
    ("a", "b", "c"),
    (("a", "b"), "c"),
    ("a", ("b", "c")),
    ["a", ["b"], "c"],
    [[], []],
    [[[]]],
    range(3),
    range(4),
    slice(3),
    collections.OrderedDict([(1, 2), (3, 4)]),
    collections.OrderedDict([(3, 4), (1, 2)]),
    decimal.Decimal(1),
    decimal.Decimal("1.0"),
    uuid.UUID(int=1),
    uuid.UUID(int=2),
    dt.date(2026, 1, 1),
    dt.datetime(2026, 1, 1),  # noqa: DTZ001
    dt.datetime(2026, 1, 1, fold=1),  # noqa: DTZ001
    dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    dt.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")),
    dt.time(1),
    dt.time(1, tzinfo=dt.UTC),
    dt.timedelta(1),
    dt.timedelta(0, 1),
    Color.RED,
    Color.BLUE,
    Bits.A,
    Bits.B,
    Bits.A | Bits.B,
    Point(1),
    Point(1, 1),
    Other(1),
    Pair(1, 2),
    Twin(1, 2),
    (1, 2),
    dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))),
    dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1), "A")),
    dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1), "B")),
    dt.time(1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    zoneinfo.ZoneInfo("UTC"),
    dt.UTC,
    holding(Point(1), more=1),
    holding(Point(1), more=2),
    Tagged(1, 2),
    holding(Tagged(1, 2), more=1),
    holding(Tagged(1, 2), more=2),
    pathlib.PurePosixPath("a"),
    pathlib.PosixPath("a"),
    pathlib.PureWindowsPath("a"),
    pathlib.PurePosixPath("a/b"),
    np.arange(3),
    np.arange(3.0),
    np.arange(3).astype("i4"),
    np.arange(4),
    np.arange(3).reshape(3, 1),
    np.arange(3).reshape(1, 3),
    np.array(1),
    np.int64(1),
    np.int32(1),
    np.float64(1),
    np.bool_(True),
    np.str_("1"),
    np.str_("1\0"),
    np.str_(""),
    np.bytes_(b""),
    np.bytes_(b"a"),
    np.bytes_(b"a\0"),
    np.array(["1"]),
    np.zeros(0),
    np.zeros((0, 3)),
    np.array([1], ">i8"),
    np.datetime64("2026-01-01"),
    np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]),
    *RECORDS,
    np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")])[0],
    np.void(b"ab"),
    np.array([(1, [2, 3])], [("a", "i4"), ("b", "f8", (2,))]),
    np.array([((1, 2),)], [("a", [("b", "i4"), ("c", "i4")])]),
    int,
    str,
    Point,
    Other,
    Color,
    type,
    "builtins:int",
    "int",
    "Cs12:builtins:int",
    "x" * LARGE,
    b"x" * LARGE,
    bytearray(b"x" * LARGE),
    ["x" * LARGE],
    "x" * (LARGE + 1),
]


def test_different_values_have_different_digests():
    for left, right in itertools.combinations(range(len(DIFFERENT)), 2):
        one, other = DIFFERENT[left], DIFFERENT[right]
        assert KEYER.digest(one) != KEYER.digest(other), (one, other)


def test_different_values_differ_inside_of_others_too():
    for wrap in (lambda v: [v], lambda v: {"k": v}, lambda v: (v, v), lambda v: Pair(1, v)):
        digests = {KEYER.digest(wrap(value)) for value in DIFFERENT}
        assert len(digests) == len(DIFFERENT)


def test_a_difference_in_the_middle_of_a_large_array_shows():
    a = np.zeros(1_000_000)
    b = a.copy()
    b[500_000] = 1
    assert KEYER.digest(a) != KEYER.digest(b)
    assert KEYER.digest(a.reshape(1000, 1000).T) != KEYER.digest(b.reshape(1000, 1000).T)


def test_the_order_of_dicts_and_sets_does_not_count():
    assert KEYER.digest({"a": 1, "b": [2]}) == KEYER.digest({"b": [2], "a": 1})
    many = [f"key{i}" for i in range(1000)]
    assert KEYER.digest(set(many)) == KEYER.digest({*many[::-1]})


def test_how_an_array_lies_in_memory_does_not_count():
    a = np.arange(24).reshape(2, 3, 4)
    for same in (
        np.asfortranarray(a),
        a.copy(),
        a[:, :, ::-1][:, :, ::-1],
        np.repeat(a, 2, axis=1)[:, ::2],
    ):
        assert KEYER.digest(same) == KEYER.digest(a)
    assert KEYER.digest(np.asfortranarray(np.eye(300)[:, :200])) == KEYER.digest(
        np.eye(300)[:, :200].copy()
    )


def test_a_large_array_is_digested_without_a_copy():
    import tracemalloc

    for array in (
        np.zeros(8_000_000, "u1"),
        np.zeros((2000, 4000), "u1").T,
        b"x" * 8_000_000,
    ):
        tracemalloc.start()
        KEYER.digest(array)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1_000_000


def test_what_has_no_stable_form_is_a_clear_type_error():
    class Thing:
        pass

    class Number(int):
        pass

    for bad in (
        Thing(),
        Number(1),
        object(),
        lambda: 1,
        [Thing()],
        {1: Thing()},
        np.array([Thing()]),
        np.ma.array([1]),
        Thing,
        Number,
        type(None),
        open,
    ):
        with pytest.raises(TypeError, match="can't be part of a key"):
            KEYER.digest(bad)
    loop = []
    loop.append(loop)
    with pytest.raises(TypeError, match="contains itself"):
        KEYER.digest(loop)


def test_a_key_error_names_the_argument_and_the_ways_out():
    """It names the function or the cache too, and advises what exists there."""

    class Thing:
        pass

    def f(x, *rest, **more):
        pass

    teach = f"teach it once with efsstate.register({Thing.__qualname__}, to_parts)"
    why = "can't be part of a key: it has no stable form; pass plain values"
    thing = f"a value of type {__name__}.{Thing.__qualname__} {why}"
    lock = f"a value of type builtins.object {why}"
    array = (
        "an array of dtype object can't be part of a key: its items are objects; pass plain values"
    )
    load = cached(name="load")(f)
    for call, said in [
        (
            lambda: load(Thing()),
            f"load: argument x: {thing}, or leave it out with ignore=, or {teach}",
        ),
        (
            lambda: load(1, [Thing()]),
            f"load: argument *: {thing}, or leave it out with ignore=, or {teach}",
        ),
        (lambda: load(1, y=object()), f"load: argument **: {lock}, or leave it out with ignore="),
        (
            lambda: load(np.array([Thing()])),
            f"load: argument x: {array}, or leave it out with ignore=",
        ),
        (lambda: load.cache.get(Thing()), f"Cache('load'): {thing}, or {teach}"),
        (lambda: efsstate.Cache("rows").get(object()), f"Cache('rows'): {lock}"),
        (
            lambda: cached(name="load", key=lambda x: Thing())(f)(1),
            f"load: what key= returned: {thing}, or {teach}",
        ),
        (lambda: cached(name="load", version=object())(f), f"load: version=: {lock}"),
    ]:
        with pytest.raises(TypeError) as caught:
            call()
        assert str(caught.value) == said


def test_an_async_functions_key_error_names_it_too():
    import asyncio

    @cached(name="load")
    async def f(x):
        pass

    @cached(name="made", key=lambda x: x)
    async def g(x):
        pass

    for function, said in (
        (f, "^load: argument x: a value"),
        (g, "^made: what key= returned: a value"),
    ):
        with pytest.raises(TypeError, match=said):
            asyncio.run(function(object()))


def test_what_holds_more_than_its_attributes_is_refused():
    values = []
    for base in (list, dict, set, str, int, tuple, collections.deque, Exception):
        kind = dataclasses.make_dataclass("Batch", [("name", object, "a")], bases=(base,))
        values.append(kind())

    class Zone(dt.tzinfo):
        def utcoffset(self, when):
            return None

    values += [
        dt.time(1, tzinfo=Zone()),
        dt.datetime(2026, 1, 1, tzinfo=Zone()),
        tuple.__new__(Pair, (1, 2, 3)),
    ]
    for value in values:
        with pytest.raises(TypeError, match=r"can't be part of a key: .*ignore=.*register"):
            KEYER.digest_call([(b"=x:", value)])
    register(Zone, lambda zone: "utc")
    assert KEYER.digest(values[-3]) != KEYER.digest(dt.time(1))


def test_a_dataclass_counts_by_its_fields():
    """The attributes of its class do not count."""
    assert KEYER.digest(Sized(1)) == KEYER.digest(Sized(1)) != KEYER.digest(Sized(2))


def test_what_a_value_has_worked_out_of_itself_does_not_count():
    for value in (Sized(1), Tagged(1, 2)):
        before = KEYER.digest(value)
        assert value.twice if isinstance(value, Sized) else value.total
        assert KEYER.digest(value) == before
    assert KEYER.digest(Cell[int](1)) == KEYER.digest(Cell(1)) != KEYER.digest(Cell(2))


def test_a_structured_array_counts_by_its_fields():
    """The bytes between the fields do not count."""
    aligned = np.dtype([("a", "u1"), ("b", "i4")], align=True)
    one, other = np.zeros(3, aligned), np.zeros(3, aligned)
    other.view("u1")[1] = 7
    assert KEYER.digest(one) == KEYER.digest(other) and KEYER.digest(one[0]) == KEYER.digest(
        other[0]
    )
    assert KEYER.digest(TRIPLE[["c", "a"]]) == KEYER.digest(TRIPLE.copy()[["c", "a"]])


def test_a_decimal_is_the_same_whatever_its_context():
    value = decimal.Decimal("1E+5")
    before = KEYER.digest(value)
    with decimal.localcontext() as context:
        context.capitals = 0
        assert KEYER.digest(value) == before


def test_what_keys_know_already_is_not_to_be_registered():
    for kind in (str, int, dict, type(None), object):
        with pytest.raises(TypeError, match="known already"):
            register(kind, lambda value: 1)
    assert KEYER.digest("a") != KEYER.digest("b")


def test_register_teaches_a_type_and_its_subclasses():
    class Image:
        def __init__(self, data):
            self.data = data

    class Photo(Image):
        pass

    with pytest.raises(TypeError, match="register"):
        KEYER.digest(Image(b"a"))
    register(Image, lambda image: image.data)
    assert KEYER.digest(Image(b"a")) == KEYER.digest(Image(b"a")) != KEYER.digest(Image(b"b"))
    assert KEYER.digest(Photo(b"a")) not in (KEYER.digest(Image(b"a")), KEYER.digest(b"a"))
    register(Image, lambda image: len(image.data))
    assert KEYER.digest(Image(b"a")) == KEYER.digest(Image(b"b"))
    with pytest.raises(TypeError):
        register("Image", len)


@dataclasses.dataclass
class Box:
    a: int
    b: int


def test_a_registered_type_goes_before_what_is_known_of_it():
    assert KEYER.digest(Box(1, 2)) != KEYER.digest(Box(1, 3))
    register(Box, lambda box: box.a)
    assert KEYER.digest(Box(1, 2)) == KEYER.digest(Box(1, 3))


SHOW = """
from efsstate.cache.keys import KeyBuilder as Keyer
import dataclasses, datetime, decimal, pathlib, sys, types, uuid, zoneinfo
Made = dataclasses.make_dataclass("Made", ["x", ("y", bytes, dataclasses.field(default=b""))])
Made.__module__ = "made"
sys.modules["made"] = types.ModuleType("made")
sys.modules["made"].Made = Made
values = (
    None, 1, ("a b", "c"), {"b": [1.5, True], "a": {"x", "y", "z"}}, "\\u00e9" * 70000, 2**100,
    frozenset({(1,), (2,)}), decimal.Decimal("1.50"), datetime.datetime(2026, 1, 2, 3, 4, 5, 6),
    uuid.UUID(int=7), pathlib.PurePosixPath("a/b"), b"\\0", -0.0, pathlib.PosixPath("a/b"),
    datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    datetime.time(1, tzinfo=datetime.timezone(datetime.timedelta(hours=-3), "here")),
    zoneinfo.ZoneInfo("Europe/Berlin"), uuid.SafeUUID.safe, Made(1, b"x"), int,
    [uuid.UUID, "uuid:UUID"],
)
for value in values:
    print(Keyer("vectors", 2).digest(value))
"""
RECORDED = """
91c430fe91e20a3abc475355fc5cf229da314a691caeef5d
e556d167a769e4b2091e5e42d4310f4ed19341d85526beab
d1a7b55cf059de6294c9b492971e4f8cfa4e1946166754cf
872c22f054feb7af211a47ecc0ef65d59d2339747071f4d4
eca5ab8b7425b51e14366c4b1b92dacaa27cbd9486f065c5
691f539caaa6400cc9f5cd76b308987da8a9cb67c5d32027
7ab570e59c9ab51c0d0fa8e8b2e93659da9eb9246d845945
eb40466fc52ef9ba8ef9c65d8039c731c616847266beb158
9fbd371af7ad4c717c3542044609c296cadc2572f6b883b9
7b89bc871f460ad60226388cf57dbc093b9acc236f4247c3
f52d6fae2cf586762641ba426f76f12562b09ae9882dbecb
7a5f9ca3857ea20ed28a568789055d074001586ff97874ab
001a4664d8a48ec1f64b0eeab26cc61097db457e96aaeeaa
d37fc4fd29e712aad08d15a704d17ca685ba6c128c35e850
ed50e2a6434d62cc362689a036c1a6cd63d19c3a1fd6ec42
5c2d3431260a34093fc15b3c22141d90be9bb73d1957778b
3d27d3d4bafd24834c918181d6bd17dafb2f5076aa8edd49
4edbc994256a61245b11b706a6ee77f1afff17993163721b
baed7d1ac0aeb6f6efe1d1361d2b6ea583421abba50fe728
cc946cb005e8630eda24986b9037604c602c7cac7f9164c4
6547e32d8f17e5705f2ea5e65c151e7c2d8617d534106d1b
"""


@pytest.mark.parametrize("seed", ["0", "1", "4711"])
def test_recorded_vectors_hold_whatever_the_hash_seed(seed):
    """Another digest would put every stored result out of reach: raise SCHEME if that is meant."""
    out = subprocess.run(
        [sys.executable, "-c", SHOW],
        env=os.environ | {"PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.split() == RECORDED.split()


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_recorded_vectors_hold_in_every_python(version):
    python = shutil.which(f"python{version}")
    env = os.environ | {
        "PYTHONPATH": os.path.dirname(os.path.dirname(efsstate.__file__)),
        "PYENV_VERSION": version,
    }
    if (
        python is None
        or subprocess.run([python, "-c", ""], env=env, capture_output=True).returncode
    ):
        pytest.skip(f"no python{version} here")
    out = subprocess.run([python, "-c", SHOW], env=env, capture_output=True, text=True, check=True)
    assert out.stdout.split() == RECORDED.split()


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary()
)
nested = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(st.text(), st.integers()), inner),
        st.sets(scalars),
    ),
    max_leaves=20,
)


def form(value):
    """Equality as keys have it: of the same type all the way down."""
    if isinstance(value, dict):
        return ("dict", frozenset((form(k), form(v)) for k, v in value.items()))
    if isinstance(value, (set, frozenset)):
        return (type(value).__name__, frozenset(form(v) for v in value))
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, tuple(form(v) for v in value))
    return (type(value).__name__, repr(value))


@settings(max_examples=300, deadline=None)
@given(nested, nested)
def test_digests_are_equal_exactly_where_values_are(one, other):
    assert (KEYER.digest(one) == KEYER.digest(other)) == (form(one) == form(other))


# Arguments


def digest(function, *args, **kwargs):
    bound = signature_of(function).bind(args, kwargs)
    return None if bound is None else KEYER.digest_call(bound)


def test_positional_keyword_and_default_forms_are_one_call():
    def f(a, b=2, *, c=3):
        pass

    forms = [
        digest(f, 1),
        digest(f, a=1),
        digest(f, 1, 2),
        digest(f, b=2, a=1),
        digest(f, 1, c=3),
        digest(f, c=3, b=2, a=1),
    ]
    assert len(set(forms)) == 1
    assert (
        digest(f, 1, 3) != forms[0] and digest(f, 1, c=2) != forms[0] and digest(f, 2) != forms[0]
    )


def test_every_kind_of_parameter_is_told_apart():
    def f(a, /, b, *rest, c, **more):
        pass

    calls = [
        digest(f, 1, 2, c=3),
        digest(f, 1, 2, 3, c=3),
        digest(f, 1, 2, 3, 4, c=3),
        digest(f, 1, 2, (3, 4), c=3),
        digest(f, 1, 2, c=3, d=4),
        digest(f, 1, 2, c=3, a=4),
        digest(f, 1, 2, c=3, rest=(3,)),
        digest(f, 1, 2, c=3, more={"d": 4}),
        digest(f, 1, 3, c=2),
    ]
    assert None not in calls and len(set(calls)) == len(calls)
    assert (
        digest(f, 1, 2, c=3, d=4, e=5)
        == digest(f, 1, 2, e=5, c=3, d=4)
        == digest(f, 1, b=2, e=5, c=3, d=4)
    )


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), ((1, 2, 3), {}), ((1,), {"z": 1}), ((), {"p": 1, "a": 2})]
)
def test_a_call_that_does_not_fit_raises_as_the_function_does(args, kwargs):
    @cached
    def f(p, /, a=1):
        pass

    with pytest.raises(TypeError, match=r"f\(\)"):
        f(*args, **kwargs)
    with pytest.raises(TypeError, match="does not take these arguments"):
        f.cache_key(*args, **kwargs)


def test_exotic_callables_are_bound_too():
    def wrapped(a, b=2):
        pass

    @functools.wraps(wrapped)
    def wrapper(*args, **kwargs):
        pass

    class Callable:
        def __call__(self, a, b=2):
            pass

        def method(self, a, b=2):
            pass

    for function in (
        wrapper,
        functools.partial(wrapped, b=2),
        functools.partial(wrapper, b=2),
        functools.lru_cache(wrapped),
        Callable(),
    ):
        assert (
            digest(function, 1)
            == digest(function, a=1)
            == digest(function, 1, b=2)
            != digest(function, 1, b=3)
        )
    assert digest(max, 1, 2) != digest(max, 2, 1)


def test_a_wrapper_that_adds_an_argument_counts_as_called():
    """The parameters of the function inside are not those of the wrapper."""

    def inject(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function("db", *args, **kwargs)

        return wrapper

    def named(function):
        @functools.wraps(function)
        def wrapper(tenant, x, y=2):
            return function(tenant + str(x))

        return wrapper

    calls = []

    @cached
    @inject
    def f(db, x, y=0):
        calls.append((db, x, y))
        return x

    @cached
    @named
    def g(name):
        calls.append(name)
        return name

    assert f(1) == f(1) == 1 and f(2) == 2 and f(x=1) == f(x=1) == 1
    assert calls == [("db", 1, 0), ("db", 2, 0), ("db", 1, 0)] and f.explain(1).startswith("hit")
    calls.clear()
    assert (
        g("a", 1) == g(tenant="a", x=1) == g("a", 1, 2) == "a1"
        and g("b", 1) == "b1"
        and calls == ["a1", "b1"]
    )


def test_a_method_that_hands_its_arguments_on_is_one_call():
    """Positional, keyword and default forms are one, as the function's inside are."""

    def passing(function):
        @functools.wraps(function)
        def wrapper(self, *args, **kwargs):
            return function(self, *args, **kwargs)

        return wrapper

    calls = []

    class Service:
        @cached(ignore=("self", "verbose"))
        @passing
        def run(self, x, y=2, verbose=False):
            calls.append(x)
            return x

    one, other = Service(), Service()
    assert one.run(1) == other.run(x=1) == one.run(1, y=2) == one.run(
        1, 2, True
    ) == 1 and calls == [1]


@dataclasses.dataclass
class Scaled:
    by: int

    def times(self, x, y=0):
        calls.append(x)
        return self.by * x + y


calls = []


def test_a_bound_method_is_known_by_what_it_is_bound_to():
    calls.clear()
    one, two = Scaled(1), Scaled(2)
    first, second = cached(one.times), cached(two.times)
    assert (first(5), second(5), first(x=5), second(5, 0), first(5, y=1)) == (
        5,
        10,
        5,
        10,
        6,
    ) and calls == [5, 5, 5]
    one.by = 3
    assert first(5) == 15
    with pytest.raises(TypeError):
        first(5, self=two)

    class Service(Scaled):
        pass

    with pytest.raises(TypeError, match="Service"):
        cached(Service(1).times)(5)
    assert (
        cached(ignore="self", name="any")(Service(4).times)(5)
        == cached(ignore="self", name="any")(Service(7).times)(5)
        == 20
    )
    with pytest.raises(TypeError, match="Service"):
        cached(name="hash")(Service(1).__repr__)()
    assert [cached(name="upper")(text.upper)() for text in ("a", "b")] == ["A", "B"]


def test_what_a_partial_fixes_counts(root):
    """Under one name, which a `partial` must be given, two would else share results."""

    def f(a, b, partial=0):
        return a, b, partial

    for n in (1, 2):
        g = cached(name="f")(functools.partial(f, n))
        assert [g(5), g(5, partial=3), g(5)] == [(n, 5, 0), (n, 5, 3), (n, 5, 0)] and (
            g.cache_info().hits,
            g.cache_info().misses,
        ) == (1, 2)
    nested = functools.partial(functools.partial(f, 1), 7)
    assert cached(name="f")(nested)() == (1, 7, 0)


def test_what_has_no_name_of_its_own_needs_one():
    class Callable:
        def __call__(self, x):
            return x

    for function in (
        functools.partial(max, 1),
        functools.update_wrapper(functools.partial(pow, 1), pow),
        Callable(),
        [].append,
    ):
        with pytest.raises(TypeError, match="name="):
            cached(function)
    assert (
        cached(name="call")(Callable())(1) == 1
        and cached(name="partial")(functools.partial(max, 1))(5) == 5
    )
    assert cached(len)("ab") == 2 and cached(functools.lru_cache(lambda x: x))(1) == 1


def test_ignored_parameters_do_not_count():
    calls = []

    class Service:
        @cached(ignore=("self", "verbose"))
        def run(self, x, verbose=False, **more):
            calls.append(x)
            return x

    assert Service().run(1) == Service().run(1, verbose=True) == Service().run(x=1)
    assert calls == [1]
    with pytest.raises(ValueError, match="no parameter 'nothing'"):
        cached(ignore="nothing")(lambda x: x)


class Model:
    calls: typing.ClassVar = []

    @classmethod
    @cached
    def load(cls, x):
        Model.calls.append((cls, x))
        return cls.__name__, x


class Large(Model):
    pass


def test_a_class_counts_by_its_place_as_the_cls_of_a_classmethod():
    Model.calls.clear()
    assert (Model.load(1), Large.load(1), Model.load(x=1), Large.load(1)) == (
        ("Model", 1),
        ("Large", 1),
        ("Model", 1),
        ("Large", 1),
    )
    assert Model.calls == [(Model, 1), (Large, 1)]
    with pytest.raises(
        TypeError,
        match=r"argument cls: the class .*Large can't be part of a key: it is not to be found",
    ):
        type("Large", (Model,), {"__module__": __name__}).load(1)


def test_self_is_left_out_only_on_demand():
    class Service:
        @cached
        def run(self, x):
            return x

    with pytest.raises(TypeError, match="Service"):
        Service().run(1)


def test_a_key_function_says_what_counts_and_its_errors_travel():
    calls = []

    @cached(key=lambda path, size=1: (path.lower(), size))
    def f(path, size=1):
        calls.append(path)
        return path

    assert f("A") == f("a") == "A" and calls == ["A"]
    assert f("a", size=2) == "a"
    with pytest.raises(AttributeError):
        f(1)
    with pytest.raises(TypeError, match="unexpected"):
        f("a", wrong=1)


def test_versions_and_names_keep_results_apart():
    def f(x):
        return x

    made = [
        cached(name=n, version=v)(f).cache_key(1)
        for n, v in [("a", None), ("a", 1), ("a", "1"), ("b", None), ("a", 2)]
    ]
    assert len(set(made)) == 5


def test_version_source_takes_the_source_in():
    def make(text):
        import linecache

        name = f"<made {text}>"
        linecache.cache[name] = (len(text), None, text.splitlines(True), name)
        space = {"__name__": "made"}
        exec(compile(text, name, "exec"), space)
        return cached(version="source")(space["f"]).cache_key(1)

    assert (
        make("def f(x):\n    return x\n")
        == make("def f(x):\n    return x\n")
        != make("def f(x):\n    return x + 1\n")
    )
    with pytest.raises(ValueError, match="no source"):
        cached(version="source")(len)


def test_the_namespace_is_the_module_and_the_name(monkeypatch):
    """Within one Lambda function, unless there is a name."""

    def f(x):
        return x

    plain = cached(f).cache.name
    assert plain == f"{__name__}.test_the_namespace_is_the_module_and_the_name.<locals>.f"
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "one")
    one = cached(f).cache.name
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "two")
    assert len({plain, one, cached(f).cache.name}) == 3
    assert cached(name="shared")(f).cache.name == "shared"


def test_two_functions_with_one_name_are_warned_of(caplog):
    space = {"__name__": "twins"}
    for text in ("def _(x): return x", "\n\ndef _(x): return -x"):
        exec(compile(text, "twins.py", "exec"), space)
        cached(space["_"])
    assert "two functions are called twins._" in caplog.text and caplog.records[0].efsstate == {
        "kind": "cache",
        "event": "same_name",
        "name": "twins._",
    }


TWINS = """
def make(n):
    def f(x): return x
    def g(x): return -x
    g.__qualname__ = f.__qualname__
    return cached(f), cached(g)
make(1)
"""


@pytest.mark.parametrize(
    "text",
    [
        "a, b = cached(lambda x: x + 1), cached(lambda x: x + 2)",
        TWINS,
    ],
)
def test_two_functions_in_one_line_are_warned_of_too(text, caplog):
    """And two that one call of a function makes."""
    exec(compile(text, "twins.py", "exec"), {"__name__": "others", "cached": cached})
    assert len(caplog.records) == 1 and "they share results" in caplog.text


def test_one_function_that_is_decorated_again_is_not_warned_of(caplog):
    def make(n):
        @cached
        @functools.lru_cache
        def f(x):
            return x

        return f

    made = [make(n) for n in range(3)] + [cached(lambda x: x) for _ in range(3)]
    assert made[0](1) == made[1](1) and not caplog.records
