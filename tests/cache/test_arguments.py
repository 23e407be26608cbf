"""A key is equal exactly where the function gets the same arguments, however a call is written."""

import collections
import copy
import dataclasses
import datetime as dt
import functools
import gc
import itertools
import struct
import sys
import types
import typing
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efsstate import cached
from efsstate.cache import key_encoding
from efsstate.cache.keys import KeyBuilder
from efsstate.cache.wrappers import hands_on

T = typing.TypeVar("T")

# Wrappers


def keep(first, number=1, size=2, **options):
    return first, number, size, options


def inject(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function("connection", *args, **kwargs)

    return wrapper


def fill_in(function):
    defaults = {"size": 99}

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **{**defaults, **kwargs})

    return wrapper


def swap(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args[::-1], **kwargs)

    return wrapper


def drop(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        kwargs.pop("size", None)
        return function(*args, **kwargs)

    return wrapper


def look(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return len(args), function(*args, **kwargs)

    return wrapper


def rebind(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        args = args or (7,)
        return function(*args, **kwargs)

    return wrapper


def through_locals(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        locals()["kwargs"].setdefault("number", len(locals()["args"]))
        return function(*args, **kwargs)

    return wrapper


def inside_another(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        def call():
            return function(*args[:1], **kwargs)

        return call()

    return wrapper


def plain(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def retry(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        for attempt in range(3):
            try:
                return function(*args, **kwargs)
            except OSError:
                print(attempt)
        return None

    return wrapper


def bound_first(function):
    @functools.wraps(function)
    def wrapper(first, *args, **kwargs):
        result = function(first, *args, **kwargs)
        return [result]

    return wrapper


def bound_second(function):
    """Its first parameter has another name than the one inside."""

    @functools.wraps(function)
    def wrapper(number, *args, **kwargs):
        return function(number, *args, **kwargs)

    return wrapper


WRAPPERS = [
    inject, fill_in, swap, drop, look, rebind, through_locals, inside_another,
    plain, retry, bound_first, bound_second, functools.lru_cache,
]  # fmt: skip
CALLS = [
    ((5,), {}),
    ((5, 1), {}),
    ((5, 1, 2), {}),
    ((5,), {"number": 1}),
    ((5,), {"size": 2}),
    ((5,), {"size": 99}),
    ((1, 5), {}),
    ((5, 2), {}),
    ((), {"first": 5}),
    ((), {"first": 5, "number": 1}),
    ((), {"number": 5}),
    ((5,), {"other": 1}),
]


def outcome(function, args, kwargs):
    try:
        return function(*args, **kwargs)
    except TypeError:
        return TypeError


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_wrapped_function_gives_what_it_gives_undecorated(wrap):
    """In whatever order its calls come: no two that differ share a key."""
    function = wrap(keep)
    wanted = [outcome(function, args, kwargs) for args, kwargs in CALLS]
    for order in (range(len(CALLS)), reversed(range(len(CALLS)))):
        decorated = cached(name=f"{wrap.__name__}{order}")(wrap(keep))
        for index in [*order, *order]:
            args, kwargs = CALLS[index]
            assert outcome(decorated, args, kwargs) == wanted[index], (args, kwargs)


@pytest.mark.parametrize("wrap", [plain, retry, bound_first, functools.lru_cache])
def test_a_wrapper_that_hands_on_has_one_form_of_a_call(wrap):
    f = cached(name="f")(wrap(keep))
    forms = [((5,), {}), ((5, 1), {}), ((5,), {"size": 2, "number": 1}), ((), {"first": 5})]
    assert len({f.cache_key(*args, **kwargs) for args, kwargs in forms}) == 1


@pytest.mark.parametrize("wrap", WRAPPERS[:8])
def test_a_wrapper_that_does_more_does_not_hand_on(wrap):
    assert not hands_on(wrap(keep))


def test_an_async_wrapper_hands_on_too():
    def passing(function):
        @functools.wraps(function)
        async def wrapper(*args, **kwargs):
            return await function(*args, **kwargs)

        return wrapper

    async def f(x, y=2):
        return x, y

    g = cached(name="f")(passing(f))
    assert g.cache_key(1) == g.cache_key(x=1, y=2) != g.cache_key(1, 3)


# Partials


class Sub(functools.partial):
    pass


class Odd(functools.partial):
    def __call__(self, /, *args, **kwargs):
        return super().__call__(*args[::-1], **kwargs)


def options(x, **more):
    return x, more


@pytest.mark.parametrize("kind", [functools.partial, Sub, Odd])
def test_all_that_a_partial_fixes_counts(kind):
    made = [
        kind(options, scale=2),
        kind(options, scale=3),
        kind(options),
        kind(options, other=2),
        kind(int, base=2),
        kind(int, base=8),
        kind(functools.partial(options, scale=2), scale=4),
        kind(keep, 1),
        kind(keep, 2),
        kind(keep, number=7),
        kind(keep, extra=7),
    ]
    functions = [cached(name=f"p{i > 3}{i > 5}{i > 6}")(f) for i, f in enumerate(made)]
    for _ in range(2):
        for undecorated, function in zip(made, functions, strict=True):
            assert function("11") == undecorated("11")


def test_a_partials_keyword_may_be_given_again():
    f = cached(name="f")(functools.partial(keep, size=5))
    assert f(1) == (1, 1, 5, {}) and f(1, size=6) == (1, 1, 6, {}) and f(1) == (1, 1, 5, {})
    assert f.cache_key(1, size=5) == f.cache_key(1)


def test_a_list_that_a_partial_fixes_counts_as_it_is():
    numbers = [1]
    f = cached(name="f")(functools.partial(sum, numbers))
    assert f() == 1
    numbers.append(2)
    assert f() == 3


# Arrays


def digest(value):
    return KeyBuilder("test", None).digest(value)


def test_dtypes_that_share_their_text_are_two():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    kinds = ("int4", "uint4", "float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz")
    arrays = [np.zeros(4, "u1").view(getattr(ml_dtypes, kind)) for kind in kinds]
    scalars = [array[0] for array in arrays]
    structured = [np.zeros(2, [("a", array.dtype)]) for array in arrays]
    for values in (arrays, scalars, structured, [{0: array} for array in arrays]):
        assert len({digest(value) for value in values}) == len(values)
    total = cached(name="total")(lambda array: float(array.astype("f4").sum()))
    byte = np.array([15], "u1")
    assert total(byte.view(ml_dtypes.int4)) == -1.0 and total(byte.view(ml_dtypes.uint4)) == 15.0


def test_a_dtype_that_is_not_described_is_refused():
    for dtype in (
        np.dtype("i4", metadata={"unit": "m"}),
        np.dtype([("a", np.dtype("i4", metadata={"unit": "m"}))]),
        np.dtype((np.dtype("i4", metadata={"unit": "m"}), (2,))),
    ):
        with pytest.raises(TypeError, match="metadata"):
            digest(np.zeros(3, dtype))


def test_records_are_not_structured_arrays():
    fields = [("a", "i4")]
    assert digest(np.zeros(3, fields)) != digest(np.zeros(3, np.dtype((np.record, fields))))
    assert digest(np.zeros(3, fields)[0]) != digest(np.zeros(3, np.dtype((np.record, fields)))[0])


@pytest.mark.parametrize("dtype", ["g", "G", [("a", "g"), ("b", "u1")]])
def test_the_padding_of_a_long_double_does_not_count(dtype):
    """It is whatever was in memory: each process would have a key of its own."""
    clean, dirty = np.zeros((2, 3), dtype), np.empty((2, 3), dtype)
    dirty.view("u1")[:] = 0xAA
    dirty[...] = clean
    for value, other in ((clean, dirty), (clean.T, dirty.T), (clean[0, 0], dirty[0, 0])):
        assert digest(value) == digest(other)
    changed = np.ones((2, 3), dtype)
    assert digest(changed) != digest(clean)
    if np.finfo(np.longdouble).nmant == 63:
        padded = np.zeros(1, "g")
        padded.view("u1")[10:] = 0xAA
        assert digest(padded) == digest(np.zeros(1, "g"))


class Metres(np.float64):
    pass


class Seconds(np.float64):
    pass


class Label(np.str_):
    pass


class Marked(np.float64):
    __slots__ = ("unit",)


def with_attribute(value, name, item):
    setattr(value, name, item)
    return value


def test_a_scalar_of_a_derived_class_counts_by_its_class():
    values = [
        np.float64(1),
        1.0,
        Metres(1),
        Seconds(1),
        Metres(2),
        with_attribute(Metres(1), "unit", "m"),
        with_attribute(Metres(1), "unit", "s"),
        Marked(1),
        with_attribute(Marked(1), "unit", "m"),
        np.str_("a"),
        Label("a"),
        with_attribute(Label("a"), "unit", "m"),
    ]
    assert len({digest(value) for value in values}) == len(values)
    assert digest(Metres(1)) == digest(Metres(1))


@dataclasses.dataclass
class Quantity(typing.Generic[T]):
    number: int

    @functools.cached_property
    def double(self):
        return self.number * 2


def test_all_that_an_instance_holds_counts_but_what_its_use_sets():
    values = [
        Quantity(1),
        with_attribute(Quantity(1), "__unit__", "m"),
        with_attribute(Quantity(1), "__unit__", "s"),
        with_attribute(Quantity(1), "unit", "m"),
    ]
    assert len({digest(value) for value in values}) == len(values)
    used = Quantity[int](1)
    assert used.double == 2 and "__orig_class__" in vars(used)
    assert digest(used) == digest(Quantity(1))


def test_a_set_of_structured_scalars_is_a_key():
    array = np.array([(1, 2), (3, 4)], [("a", "i4"), ("b", "i4")])
    array.flags.writeable = False
    assert digest({array[0], array[1]}) == digest({array[1], array[0]}) != digest({array[0]})


def test_classes_that_a_program_makes_are_not_kept():
    """A handler that makes a class for each request must not grow by it."""
    namespace = globals()
    references = []
    for number in range(3):
        kind = collections.namedtuple("Made", f"a{number}", module=__name__)  # noqa: PYI024
        namespace["Made"] = kind
        digest(kind(1)), digest(kind)
        references.append(weakref.ref(kind))
    del kind, namespace["Made"]
    gc.collect()
    assert [reference() for reference in references] == [None] * 3


# The bytes of a key


class Reader:
    """Parse the bytes of a key back, with nothing but their grammar: none is prefix of another."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        assert self.at + count <= len(self.data)
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, ends):
        start = self.at
        while self.data[self.at : self.at + 1] not in ends:
            assert self.data[self.at : self.at + 1] in b"-0123456789"
            self.at += 1
        value = int(self.data[start : self.at])
        return value, self.take(1)

    def raw(self):
        length, mark = self.number((b":", b"#"))
        return (length, self.take(24)) if mark == b"#" else self.take(length)

    def many(self, parse):
        return tuple([parse() for _ in range(self.number((b":",))[0])])

    def value(self):
        tag = self.take(1)
        return tag, READERS[tag.decode()](self)

    def text(self):
        assert self.take(1) == b"s"
        return self.raw()

    def row(self):
        assert self.take(1) == b"t"
        return self.many(self.value)

    def array(self):
        description = self.value()
        return description, self.row(), self.fields(description)

    def fields(self, description):
        """The digest of the items; of a structured array one for each field."""
        tag, content = description
        if tag == b"t" and content[0][0] == b"C":
            content = content[1:]
        if tag != b"t" or content[1][0] != b"l":
            return self.take(24)
        return tuple([self.array() for _ in content[1][1]])

    def view(self):
        parts = self.text(), self.row()
        assert self.take(1) == b"-"
        return *parts, self.raw()

    def scalar(self):
        kind = self.take(1)
        if kind == b"S":
            assert self.take(1) == b"b"
        return kind, {b"U": self.text, b"S": self.raw, b"V": self.array}[kind]()

    def end(self):
        assert self.take(1) == b";"


READERS = {
    **dict.fromkeys("NTF", Reader.end),
    **dict.fromkeys("sbaI", Reader.raw),
    **dict.fromkeys("lt", lambda reader: reader.many(reader.value)),
    **dict.fromkeys("SZ", lambda reader: reader.many(lambda: reader.take(24))),
    **dict.fromkeys("dO", lambda reader: reader.many(lambda: (reader.take(24), reader.value()))),
    **dict.fromkeys("rxyeqz", Reader.row),
    **dict.fromkeys("hwE", lambda reader: (reader.text(), reader.row())),
    **dict.fromkeys("kmPHpjC", Reader.text),
    **dict.fromkeys("DM", lambda reader: (reader.text(), reader.value(), reader.value())),
    "i": lambda reader: reader.number((b";",))[0],
    "f": lambda reader: reader.take(8),
    "c": lambda reader: reader.take(16),
    "u": lambda reader: reader.take(16),
    "R": lambda reader: (reader.text(), reader.value()),
    "A": Reader.array,
    "v": Reader.view,
    "n": Reader.scalar,
}


def parse(*values):
    pieces = []
    for value in values:
        key_encoding.encode(value, pieces.append)
    reader = Reader(b"".join(pieces))
    parsed = [reader.value() for _ in values]
    assert reader.at == len(reader.data)
    return parsed


def test_every_keys_bytes_parse_back(different):
    """In a row, and one inside another: where one value ends the bytes say themselves."""
    for value in different:
        for wrapped in (value, [value], (value, 1), {"k": value}):
            (parsed,) = parse(wrapped)
            assert parse(wrapped, 1, wrapped) == [parsed, (b"i", 1), parsed]
    assert len({repr(parse(value)) for value in different}) == len(different)


numpy_values = st.one_of(
    st.text(max_size=6).map(np.str_),
    st.binary(max_size=6).map(np.bytes_),
    st.integers(-100, 100).map(np.int64),
    st.floats(allow_nan=False).map(np.float64),
    st.lists(st.integers(0, 9), max_size=3).map(np.array),
)
plain_values = st.one_of(st.text(max_size=6), st.binary(max_size=6), st.integers(), st.booleans())
rows = st.lists(st.one_of(numpy_values, plain_values), max_size=4)


def pieces(row):
    taken = []
    for value in row:
        key_encoding.encode(value, taken.append)
    return b"".join(taken)


def form(row):
    return [(type(v), getattr(v, "dtype", None), repr(v)) for v in row]


@settings(max_examples=300, deadline=None)
@given(rows, rows)
def test_no_row_of_values_has_the_bytes_of_another(row, other):
    assert (pieces(row) == pieces(other)) == (form(row) == form(other))
    assert len(parse(*row)) == len(row)


def test_a_text_can_not_pretend_to_be_a_numpy_scalar():
    """The bytes of a scalar and what follows were those of a text that holds both."""
    scalar = [np.int64(1), "tail"]
    data = pieces(scalar)
    for text in ("<i8", "<i8t0:", data[2:].decode("latin-1")):
        assert not pieces([np.str_(text)]).startswith(data[:4])
    assert struct.calcsize("<q") == 8


# Signatures

names = st.lists(st.sampled_from("abcd"), unique=True, max_size=4)


@st.composite
def functions(draw):
    """A function that returns what it got, with a signature of any kind."""
    chosen = draw(names)
    counts = sorted(draw(st.tuples(*[st.integers(0, len(chosen))] * 2)))
    first, second, third = chosen[: counts[0]], chosen[counts[0] : counts[1]], chosen[counts[1] :]
    defaults = draw(st.integers(0, len(first) + len(second)))
    positional = [*first, *second]
    parts = []
    for index, name in enumerate(positional):
        parts.append(f"{name}={index}" if index >= len(positional) - defaults else name)
        if index == len(first) - 1:
            parts.append("/")
    rest = draw(st.booleans())
    if rest or third:
        parts.append("*rest" if rest else "*")
    parts += [f"{name}={ord(name)}" if draw(st.booleans()) else name for name in third]
    named = draw(st.booleans())
    parts += ["**named"] * named
    got = [*positional, *third, *["rest"] * rest, *["named"] * named]
    space = {}
    body = ", ".join(f"({name!r}, {name})" for name in got)
    exec(f"def f({', '.join(parts)}): return [{body}]", space)
    return space["f"]


small = st.sampled_from([0, 1, True, "0", 97])
calls = st.tuples(st.lists(small, max_size=4), st.dictionaries(st.sampled_from("abcdx"), small))


def got(function, call):
    args, kwargs = call
    try:
        return typed(function(*args, **kwargs))
    except TypeError:  # the call does not fit
        return None


def typed(value):
    if isinstance(value, (list, tuple)):
        return [type(value), *map(typed, value)]
    if isinstance(value, dict):
        return sorted((key, typed(item)) for key, item in value.items())
    return type(value), value


@settings(max_examples=400, deadline=None)
@given(functions(), st.lists(calls, min_size=2, max_size=4), calls, st.sampled_from(["", "plain"]))
def test_keys_are_equal_exactly_where_the_arguments_are(function, some_calls, fixed, wrapper):
    """Over signatures, wrappers and partials."""
    made = plain(function) if wrapper else function
    if fixed[0] or fixed[1]:
        made = functools.partial(made, *fixed[0][:1], **dict(itertools.islice(fixed[1].items(), 1)))
    decorated = cached(name="f")(made)
    outcomes = []
    for args, kwargs in some_calls:
        arguments = got(made, (args, kwargs))
        if arguments is None:
            with pytest.raises(TypeError, match="does not take these arguments"):
                decorated.cache_key(*args, **kwargs)
        else:
            outcomes.append((arguments, decorated.cache_key(*args, **kwargs)))
    for (left, key), (right, other) in itertools.combinations(outcomes, 2):
        assert (key == other) == (left == right), (left, right)


# Types of other libraries


def test_the_zones_of_dateutil_are_keys():
    """Every answer of boto3 has them."""
    tz = pytest.importorskip("dateutil.tz")
    zones = [tz.tzutc(), tz.tzoffset("A", 3600), tz.tzoffset("B", 3600), tz.tzoffset("A", 7200)]
    times = [dt.datetime(2026, 1, 1, tzinfo=zone) for zone in zones]
    for values in (zones, times):
        assert len({digest(value) for value in values}) == len(values)
        assert [digest(value) for value in copy.deepcopy(values)] == list(map(digest, values))
    with pytest.raises(TypeError, match="can't be part of a key"):
        digest(dt.datetime(2026, 1, 1, tzinfo=tz.tzlocal()))


MODELS = """
import pydantic

class Order(pydantic.BaseModel, extra="allow"):
    number: int
    items: list[str] = []
    _note: str = pydantic.PrivateAttr(default="")

class Other(pydantic.BaseModel):
    number: int
    items: list[str] = []
"""


@pytest.fixture
def models(monkeypatch):
    """Return a module of pydantic models, which can be found by its name."""
    pytest.importorskip("pydantic")
    module = types.ModuleType("models_of_pydantic")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(MODELS, vars(module))
    return module


def test_models_of_pydantic_are_keys(models):
    Order = models.Order  # noqa: N806
    noted = Order(number=1)
    noted._note = "private"
    values = [
        Order(number=1),
        Order(number=2),
        Order(number=1, items=["a"]),
        Order(number=1, items=[]),
        Order(number=1, more=5),
        models.Other(number=1),
        noted,
    ]
    assert len({digest(value) for value in values}) == len(values)
    assert digest(Order(items=["a"], number=1)) == digest(Order(number=1, items=["a"]))

    class Local(Order):
        pass

    with pytest.raises(TypeError, match="not to be found under that name"):
        digest(Local(number=1))
