"""Values of classes and libraries: back exactly in another process, or refused; no code runs."""

import base64
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import subprocess
import sys
import types
import zoneinfo
from unittest import mock

import dateutil.tz
import msgpack
import numpy as np
import pytest

from efsstate import EncodeError
from efsstate.format import codec
from efsstate.format.codec import msgpack as ours

MODULE = "kinds_of_values"
SOURCE = """
import collections, dataclasses, enum, functools, typing
import attrs, dateutil.tz, numpy, pydantic

T = typing.TypeVar("T")

class Perm(enum.Flag):
    R = 1
    W = 2
    X = 4

class Mode(enum.IntFlag):
    A = 1
    B = 2

class Descending(enum.Flag):
    W = 2
    R = 1

class Wide(enum.IntFlag):
    BOTH = 3
    MORE = 4

class Kept(enum.Flag, boundary=enum.KEEP):
    A = 1
    B = 2

class Open(enum.Enum):
    A = 1

    @classmethod
    def _missing_(cls, value):
        member = object.__new__(cls)
        member._name_, member._value_ = f"UNKNOWN_{value}", value
        cls._member_map_[member._name_] = cls._value2member_map_[value] = member
        return member

class Lenient(enum.Flag):
    A = 1
    B = 2

    @classmethod
    def _missing_(cls, value):
        return super()._missing_(cls[value].value if isinstance(value, str) else value)

class Number(int):
    def __new__(cls, value):
        return super().__new__(cls, value)

class Mixed(Number, enum.Flag):
    A = 1
    B = 2

@dataclasses.dataclass
class Circle:
    radius: float

    @functools.cached_property
    def area(self):
        return 3 * self.radius**2

@dataclasses.dataclass
class Box(typing.Generic[T]):
    item: T

@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: int = 0

@dataclasses.dataclass(eq=False)
class OwnHash:
    x: int

    def __hash__(self):
        return hash(self.x)

    def __eq__(self, other):
        return self.x == other.x

@attrs.define
class Slotted:
    x: int
    y: list = attrs.field(factory=list)

@attrs.frozen
class Frozen:
    x: int

@attrs.define(slots=False)
class Plain:
    x: int

class Model(pydantic.BaseModel):
    x: int
    names: list[str] = []
    inner: "Model | None" = None
    _secret: int = pydantic.PrivateAttr(default=3)

class Extra(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", frozen=True)
    x: int
"""


@pytest.fixture
def kinds(tmp_path, monkeypatch):
    """Return a module of classes, which other processes can import too."""
    (tmp_path / f"{MODULE}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop(MODULE, None)
    module = __import__(MODULE)
    yield module
    sys.modules.pop(MODULE, None)


def packed(value):
    parts = codec.dumps(value)
    return b"".join(bytes(part) for part in parts) if isinstance(parts, list) else bytes(parts)


EXPRESSIONS = [
    "kinds.Perm.R | kinds.Perm.W",
    "kinds.Perm(0)",
    "~kinds.Perm.R",
    "kinds.Mode.A | kinds.Mode.B",
    "~kinds.Mode.A",
    "kinds.Descending.R | kinds.Descending.W",
    "kinds.Wide(1)",
    "kinds.Wide(5)",
    "kinds.Kept.A | kinds.Kept.B",
    "kinds.Open.A",
    "kinds.Lenient.A",
    "kinds.Circle(2.0)",
    "used(kinds.Circle(2.0), 'area')",
    "kinds.Box[int](1)",
    "{kinds.Point(1): 2, kinds.Point(2): [3]}",
    "{kinds.Point(1), kinds.Point(2)}",
    "kinds.Slotted(1, [2])",
    "kinds.Plain(1)",
    "{kinds.Frozen(1), kinds.Frozen(2)}",
    "kinds.Model(x=1, names=['a'], inner=kinds.Model(x=2))",
    "kinds.Extra(x=1, y=2)",
    "'lone \\ud83d surrogate'",
    "{'\\ud83d': ['\\udc00', 'ü', 'plain']}",
    "datetime.datetime(2026, 1, 2, tzinfo=dateutil.tz.tzutc())",
    "datetime.datetime(2026, 1, 2, tzinfo=dateutil.tz.tzlocal())",
    "datetime.datetime(2026, 1, 2, tzinfo=dateutil.tz.tzoffset('X', 3600))",
    "datetime.datetime(2026, 7, 2, 3, fold=1, tzinfo=dateutil.tz.gettz('Europe/Berlin'))",
    "numpy.zeros(3, numpy.dtype({'names': ['a', 'b'], 'formats': ['i4'] * 2, 'offsets': [4, 9]}))",
    "numpy.zeros(2, numpy.dtype([('a', 'i1'), ('b', 'i8')], align=True))[['b', 'a']]",
    "numpy.zeros(2, numpy.dtype((numpy.record, [('a', 'i4')])))",
    "numpy.zeros(2, numpy.dtype((numpy.record, [('a', 'i4')])))[0]",
    "numpy.zeros(2, [('a', 'i4', (2, 3)), ('b', [('c', 'U3')])])",
    "numpy.longdouble(1) / 3",
    "numpy.arange(4, dtype=numpy.longdouble) / 3",
    "numpy.arange(4, dtype=numpy.clongdouble) / 3",
    "read_only(numpy.zeros(2, [('a', 'i4')]))",
    "numpy.zeros(2, [('a', 'U0'), ('b', 'i4')])",
    "numpy.zeros(2, [('a', 'U0'), ('b', 'i4')])['a']",
    "numpy.zeros((2, 3), [('a', 'S0'), ('b', 'i4')])['a'].T",
    "numpy.zeros((2, 0), 'U3')",
    "numpy.zeros(2, 'V0')",
]

PROGRAM = f"""
import base64, datetime, sys
sys.path.insert(0, sys.argv[1])
import dateutil.tz, numpy
import {MODULE} as kinds
from efsstate.format import codec


def used(value, name):
    getattr(value, name)
    return value


def read_only(array):
    array.flags.writeable = False
    return {{array[0], array[1]}}


def same(a, b):
    assert type(a) is type(b), (type(a), type(b))
    if isinstance(a, numpy.ndarray):
        return a.dtype == b.dtype and a.dtype.type is b.dtype.type and a.shape == b.shape and (
            bool((a == b).all()))
    if isinstance(a, datetime.datetime):
        return a == b and type(a.tzinfo) is type(b.tzinfo) and a.tzname() == b.tzname() and (
            a.utcoffset() == b.utcoffset() and a.fold == b.fold)
    return a == b and (not hasattr(a, "model_fields_set")
        or a.model_fields_set == b.model_fields_set)


lines = [line.rstrip("\\n").split("\\t") for line in sys.stdin]
values = [codec.loads(bytearray(base64.b64decode(data))) for data, _ in lines]
for (_, expression), value in zip(lines, values):
    wanted = eval(expression)
    print(same(value, wanted), repr(value)[:60].encode("ascii", "backslashreplace"))
"""


def used(value, name):
    getattr(value, name)
    return value


def read_only(array):
    array.flags.writeable = False
    return {array[0], array[1]}


def test_common_values_come_back_exactly_in_another_process(kinds, tmp_path):
    names = {**globals(), "kinds": kinds, "datetime": dt, "numpy": np}
    lines = []
    for expression in EXPRESSIONS:
        data = packed(eval(expression, names))
        lines.append(f"{base64.b64encode(data).decode()}\t{expression}\n")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        input="".join(lines),
        capture_output=True,
        text=True,
    )
    answers = done.stdout.splitlines()
    assert len(answers) == len(EXPRESSIONS), done.stderr
    wrong = [pair for pair in zip(EXPRESSIONS, answers, strict=True) if pair[1][:4] != "True"]
    assert wrong == []


@pytest.mark.parametrize(
    "expression",
    ["Mode(9)", "Mode(8)", "Kept(8)", "Kept(9)", "Open(5)", "Lenient(3)", "Mixed(3)"],
)
def test_a_member_that_only_this_process_has_is_refused(kinds, expression):
    """Its class knows it once it was made; another process could not read it."""
    value = eval(f"kinds.{expression}", {"kinds": kinds})
    with pytest.raises(EncodeError, match="not one of its enum's members"):
        codec.dumps({"mode": value})


def with_attribute(value, name, item):
    setattr(value, name, item)
    return value


def test_a_used_cached_property_is_computed_again(kinds):
    """It is no part of the value: a cache beside it, which the class fills when it is asked."""
    back = codec.loads(packed(used(kinds.Circle(2.0), "area")))
    assert "area" not in vars(back) and back.area == 12


def test_a_private_attribute_of_a_model_is_kept(kinds):
    model = kinds.Model(x=1)
    model._secret = 7
    assert codec.loads(packed(model))._secret == 7


REFUSED = {
    "an array's dtype has metadata": lambda: np.zeros(1, np.dtype("i4", metadata={"unit": "m"})),
    "a mock of a member": lambda: mock.Mock(spec=enum.Enum("Color", "RED").RED),
    "a lazy object": lambda: Lazy(),  # noqa: PLW0108 - it stands below
    "an own time zone": lambda: dt.datetime(2026, 1, 1, tzinfo=OwnZone()),
    "a local class": lambda: dataclasses.make_dataclass("Local", ["x"])(1),
}


class OwnZone(dt.tzinfo):
    pass


class Lazy:
    """As Django's SimpleLazyObject: all that is asked of it is asked of what it can't load."""

    @property
    def __class__(self):
        raise ConnectionError("the database is down")

    def __getattr__(self, name):
        raise ConnectionError("the database is down")


@dataclasses.dataclass
class Loud:
    """A dataclass whose every attribute is code that fails."""

    x: int

    def __getattr__(self, name):
        raise ConnectionError(name)

    def __getattribute__(self, name):
        raise ConnectionError(name)


@dataclasses.dataclass
class Computed:
    x: int

    @property
    def y(self):
        raise ConnectionError


@pytest.mark.parametrize("name", REFUSED)
def test_values_that_cannot_be_kept_are_encode_errors(name):
    """Never an exception of their own: the caller gets its result."""
    value = REFUSED[name]()
    for wrapped in (value, [value], {"k": value}, (value, 1)):
        with pytest.raises(EncodeError):
            codec.dumps(wrapped)


def test_a_dataclass_is_kept_without_running_its_attribute_hooks():
    back = codec.loads(packed(Loud(3)))
    assert type(back) is Loud and object.__getattribute__(back, "__dict__") == {"x": 3}
    assert codec.loads(packed(Computed(4))).x == 4


class RanError(Exception):
    """Raised by code that must not run."""


def planted(monkeypatch, space, *, decorate=dataclasses.dataclass):
    """Return a class that an attacker may name, with special methods that tell when they run."""
    module = types.ModuleType("planted")
    monkeypatch.setitem(sys.modules, "planted", module)
    ran = []

    def method(name):
        def run(self, *args):
            ran.append(name)
            return 0

        return run

    names = {"__module__": "planted", "__annotations__": {"x": int}}
    names.update({name: method(name) for name in space})
    module.Thing = decorate(type("Thing", (), names))
    module.Thing.__qualname__ = "Thing"
    return module.Thing, ran


def thing(x):
    return [msgpack.ExtType(15, b""), "planted", "Thing", ["x"], [x]]


def framed(body):
    return b"\xc1" + len(body).to_bytes(4, "little") + body


def message(value):
    return framed(msgpack.packb(value))


def marked(code, *items):
    return [msgpack.ExtType(code, b""), *items]


SPECIAL = [
    "__del__", "__hash__", "__eq__", "__setstate__", "__post_init__", "__init__", "__setattr__",
    "__getattribute__", "__getattr__", "__repr__", "__bool__", "__len__", "__iter__", "__reduce__",
    "__instancecheck__", "__set_name__", "__lt__", "__index__", "__copy__", "__deepcopy__",
]  # fmt: skip

HOSTILE = {
    "alone": lambda: message(thing(1)),
    "dropped": lambda: message([thing(1), [msgpack.ExtType(1, b"")] * 2])[:-1],
    "in a set": lambda: message(marked(3, thing(1), thing(2), thing(1))),
    "in a frozenset": lambda: message(marked(4, thing(1), thing(1))),
    "in a tuple in a set": lambda: message(marked(3, marked(1, thing(1)), marked(1, thing(1)))),
    "a key": lambda: message(marked(19, thing(1), 2, thing(1), 3)),
    "in a key": lambda: message(marked(19, marked(1, thing(1)), 2)),
    "a key of a plain map": lambda: framed(
        b"\x82" + msgpack.packb(thing(1)) + b"\x01" + msgpack.packb(thing(1)) + b"\x02"
    ),
    "in another's field, a key": lambda: message(marked(19, thing(thing(1)), 2)),
}


@pytest.mark.parametrize("how", HOSTILE)
@pytest.mark.parametrize("special", [[name] for name in SPECIAL] + [SPECIAL])
def test_no_code_of_a_class_runs_while_bytes_are_read(monkeypatch, special, how):
    """A planted entry names an imported class, and the fields that its methods would get."""
    _, ran = planted(monkeypatch, special)
    data = HOSTILE[how]()
    ran.clear()
    try:
        value = codec.loads(data)
    except ValueError:
        value = None
    seen = list(ran)
    del value
    if "__del__" in special:
        seen = list(ran)
    assert seen == []


def test_members_with_a_hash_of_their_own_are_values_but_no_keys(kinds):
    value = kinds.OwnHash(1)
    assert codec.loads(packed([value, {"k": value}]))[1]["k"].x == 1
    for refused in ({value}, frozenset([(value, 1)]), {value: 1}, {kinds.Point(value): 1}):
        with pytest.raises(EncodeError, match="__hash__"):
            codec.dumps(refused)


def test_a_class_with_a_finalizer_is_refused(monkeypatch):
    kind, _ = planted(monkeypatch, ["__del__"])
    with pytest.raises(EncodeError, match="__del__"):
        codec.dumps(kind(1))


def test_a_flag_with_code_of_its_own_makes_no_combination(monkeypatch):
    module = types.ModuleType("planted")
    monkeypatch.setitem(sys.modules, "planted", module)
    ran = []

    class Own(enum.Flag):
        A = 1
        B = 2

        @classmethod
        def _missing_(cls, value):
            ran.append(value)
            return super()._missing_(value)

    Own.__module__, Own.__qualname__, module.Own = "planted", "Own", Own
    with pytest.raises(ValueError, match="can't be read"):
        codec.loads(message(marked(17, "planted", "Own", 3)))
    assert ran == []


def test_a_flags_bits_that_no_member_has_are_refused(kinds):
    for number in (8, 2**62, -(2**62)):
        with pytest.raises(ValueError, match="can't be read"):
            codec.loads(message(marked(17, MODULE, "Perm", number)))


def test_values_beyond_a_messages_limit_lie_outside_of_it(monkeypatch):
    """As two values of 2 GiB do, which MessagePack refuses with an OverflowError."""
    pack, sizes = ours._pack, []

    def limited(value, **options):
        data = pack(value, **options)
        sizes.append(len(data))
        if len(data) > 3_000_000:
            raise OverflowError("bytes is too large")
        return data

    monkeypatch.setattr(ours, "_pack", limited)
    big = bytes(range(256)) * 6000
    value = (big, bytearray(big), "ü" * 1_600_000, "x" * 1_600_000, {"k": [big]}, "\ud800", 5)
    back = codec.loads(packed(value))
    assert back == value and [type(item) for item in back] == [type(item) for item in value]
    assert sizes[-1] < 1000


def test_a_long_double_of_another_machine_is_not_taken_for_ours(monkeypatch):
    """An x86 and an arm64 function on one mount: both call it <f16."""
    from efsstate.format.codec import arrays

    data = packed(np.arange(3, dtype=np.longdouble))
    monkeypatch.setattr(arrays, "_precision", lambda: 112)
    with pytest.raises(ValueError, match="another machine"):
        codec.loads(data)


def test_long_doubles_have_no_uninitialised_bytes():
    """Their padding would make the payload of equal values differ, and carry memory of ours."""
    noise = np.frombuffer(bytes(range(1, 33)), np.longdouble)
    if np.finfo(np.longdouble).nmant != 63:
        pytest.skip("a long double has no padding here")
    data = packed(noise)
    assert bytes(range(1, 11)) in data and bytes(range(11, 17)) not in data


def test_zones_of_dateutil_are_not_read_from_any_path():
    """A zone's name in the bytes must not open a file of the reader's, or wait for a FIFO."""
    for name in ("/etc/passwd", "../../../etc/passwd", "Europe/../../../etc/passwd", "", "."):
        moment = marked(11, 2026, 1, 2, 3, 4, 5, 0, 0, ["dateutil", "gettz", name])
        with (
            mock.patch("dateutil.tz.gettz", side_effect=RanError) as gettz,
            pytest.raises(ValueError, match="can't be read"),
        ):
            codec.loads(message(moment))
        assert not gettz.called, name


@pytest.mark.parametrize("data", [b"", b"1234567", b"123456789"])
def test_a_scalar_with_more_or_fewer_bytes_is_refused(data):
    """Few bytes must not ask for two gigabytes, nor may many be one value."""
    for dtype in ("<i8", "|V8"):
        assert len(codec.loads(message(marked(14, dtype, b"12345678"))).tobytes()) == 8
        with pytest.raises(ValueError, match="can't be read"):
            codec.loads(message(marked(14, dtype, data)))


def test_no_library_is_imported_by_the_bytes(tmp_path):
    program = (
        "import sys\n"
        "from efsstate.format import codec\n"
        "import base64\n"
        "try: codec.loads(base64.b64decode(sys.argv[1]))\n"
        "except ValueError: print('refused', 'dateutil' in sys.modules)\n"
    )
    data = packed(dt.datetime(2026, 1, 2, tzinfo=dateutil.tz.tzutc()))
    done = subprocess.run(
        [sys.executable, "-c", program, base64.b64encode(data).decode()],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "refused False\n", done.stderr


FRAMES = [
    "pandas.DataFrame({'a': [1, 2], 'b': [1.5, None], 'c': ['x', 'y']})",
    "pandas.DataFrame({'a': [1, 2]}, index=['x', 'y'])",
    "pandas.DataFrame({'t': pandas.to_datetime(['2026-01-01', None], utc=True)})",
    "pandas.DataFrame({'c': pandas.Categorical(['x', 'y', 'x'])})",
    "pandas.DataFrame({'n': pandas.array([1, None], dtype='Int64')})",
    "pandas.DataFrame({('a', 1): [1], ('b', 2): [2]})",
    "pandas.DataFrame({'a': []})",
    "pandas.Series([1, 2, 3], name='s')",
    "pandas.Series([1.5, 2], index=pandas.date_range('2026-01-01', periods=2, name='day'))",
    "pandas.Series([1, 2], index=pandas.date_range('2026-01-01', periods=2, freq='-1D'))",
    "pandas.Series([1, 2, 3], index=pandas.timedelta_range('1h', periods=3, freq='h'))",
    "pandas.DataFrame([[1, 2]], columns=pandas.date_range('2026-01-01', periods=2, freq='MS'))",
    "pandas.Series([1, 2], index=pandas.MultiIndex.from_product([['a'], [1, 2]]))",
    "pandas.Series([decimal.Decimal('1.10'), decimal.Decimal('2.20')])",
    "pandas.Series([0.0, -0.0])",
    "pandas.Series(pandas.to_datetime(['2026-01-01', None]).tz_localize('Europe/Berlin'))",
    "pandas.Series([1, 2], index=pandas.date_range('2026-01-01', periods=2, tz='UTC', freq='h'))",
    "pandas.DataFrame([[1]], columns=pandas.date_range('2026-01-01', periods=1, tz='UTC'))",
    "pandas.Series([1], index=[['a'], pandas.to_datetime(['2026-01-01'], utc=True)])",
    "pandas.Series(['a', None], dtype='string')",
    "pandas.Series(pandas.Categorical(pandas.to_datetime(['2026-01-01', None])))",
    "polars.DataFrame({'a': [1, None], 'b': ['x', 'y'], 'c': [[1], [2, 3]]})",
    "polars.Series('s', [1, 2])",
    "polars.DataFrame()",
    "PIL.Image.new('RGB', (3, 2), (1, 2, 3))",
    "PIL.Image.new('1', (9, 2), 1)",
    "PIL.Image.new('RGB', (3, 2), (1, 2, 3)).convert('P')",
    "PIL.Image.new('I;16', (3, 2), 700)",
]

FRAME_PROGRAM = """
import base64, decimal, sys
import pandas, polars, PIL.Image
from efsstate.format import codec


def zones(value):
    if not isinstance(value, (pandas.DataFrame, pandas.Series)):
        return []
    kinds = [*(value.dtypes if value.ndim == 2 else [value.dtype])]
    for index in (value.index, getattr(value, "columns", pandas.Index([]))):
        levels = index.levels if isinstance(index, pandas.MultiIndex) else [index]
        kinds += [level.dtype for level in levels]
    return [repr(getattr(kind, "tz", None)) for kind in kinds]


for line in sys.stdin:
    data, expression = line.rstrip("\\n").split("\\t")
    value, wanted = codec.loads(bytearray(base64.b64decode(data))), eval(expression)
    same = value == wanted if isinstance(value, PIL.Image.Image) else value.equals(wanted)
    more = [getattr(v, n, None) for n in ("name", "schema") for v in (value, wanted)]
    for name in ("index", "columns"):
        more += [getattr(getattr(v, name, None), "freq", None) for v in (value, wanted)]
    more += [repr(v) for v in (value, wanted) if isinstance(v, pandas.Series)]
    more += zones(value) and [zones(value), zones(wanted)]
    kinds = str(getattr(value, "dtypes", "")) == str(getattr(wanted, "dtypes", ""))
    print(type(value) is type(wanted) and same and kinds and more[0::2] == more[1::2])
"""


@pytest.fixture
def libraries():
    """Return the libraries of frames and images by name, imported."""
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    pytest.importorskip("pyarrow")
    image = pytest.importorskip("PIL.Image")
    return {
        "pandas": pandas,
        "polars": polars,
        "decimal": decimal,
        "PIL": types.SimpleNamespace(Image=image),
    }


def test_frames_and_images_come_back_in_another_process(libraries):
    lines = []
    for expression in FRAMES:
        data = packed(eval(expression, dict(libraries)))
        lines.append(f"{base64.b64encode(data).decode()}\t{expression}\n")
    done = subprocess.run(
        [sys.executable, "-c", FRAME_PROGRAM], input="".join(lines), capture_output=True, text=True
    )
    answers = done.stdout.splitlines()
    assert len(answers) == len(FRAMES), done.stderr
    assert [f for f, a in zip(FRAMES, answers, strict=True) if a != "True"] == []


@pytest.mark.parametrize(
    "expression",
    [
        "pandas.DataFrame({'a': [1, 'x', None]})",
        "pandas.DataFrame({'a': ['x']}, dtype=object)",
        "pandas.DataFrame([[1, 2]], columns=['a', 'a'])",
        "pandas.DataFrame({'p': pandas.period_range('2026-01', periods=2, freq='M')})",
        "pandas.DataFrame({'o': [object()]})",
        "pandas.Series(by_day().tz_localize(dateutil.tz.tzutc()))",
        "pandas.Series([1, 2], index=by_day().tz_localize(zoneinfo.ZoneInfo('UTC')))",
        "pandas.Series(by_day().tz_localize(datetime.timezone(datetime.timedelta(0, 60), 'X')))",
        "pandas.Series([decimal.Decimal('1.1'), decimal.Decimal('1.10')])",
        "pandas.Series([1, 2], index=[decimal.Decimal('1.1'), decimal.Decimal('1.20')])",
        "pandas.Series(pandas.Categorical([decimal.Decimal('1.1'), decimal.Decimal('1.20')]))",
        "pandas.DataFrame([[1, 2]], columns=by_day(freq=pandas.offsets.CDay(weekmask='Fri')))",
        "pandas.Series([1, 2], index=pandas.MultiIndex.from_product([[1, 2], ['a']]))[:1]",
        "pandas.Series([1, 2], index=pandas.MultiIndex.from_product([['a'], by_day(freq='D')]))",
        "with_attribute(pandas.Series([1]), 'unit', 'm')",
        "with_attribute(pandas.DataFrame({'a': [1]}), 'unit', 'm')",
        "polars.DataFrame({'o': [object()]}, schema={'o': polars.Object})",
    ],
)
def test_a_frame_that_arrow_changes_is_refused(libraries, expression):
    by_day = functools.partial(libraries["pandas"].date_range, "2026-01-01", periods=2)
    names = {"with_attribute": with_attribute, "by_day": by_day, "datetime": dt}
    names |= {"dateutil": dateutil, "zoneinfo": zoneinfo}
    value = eval(expression, {**libraries, **names})
    with pytest.raises(EncodeError):
        codec.dumps(value)


def test_an_accessor_that_was_used_is_no_attribute(libraries):
    series = libraries["pandas"].Series(["a", "b"])
    assert list(series.str.upper()) == ["A", "B"]
    assert list(codec.loads(packed(series))) == ["a", "b"]


def test_a_frame_is_the_callers_to_change(libraries):
    frame = codec.loads(bytearray(packed(libraries["pandas"].DataFrame({"a": [1, 2]}))))
    frame.loc[0, "a"] = 7
    assert list(frame["a"]) == [7, 2]


def test_hostile_frames_and_images_are_value_errors(libraries):
    """Cut, flipped, and with sizes that would take all memory."""
    values = [eval(expression, dict(libraries)) for expression in FRAMES[:1] + FRAMES[9:10]]
    for value in values:
        data = packed(value)
        for cut in range(0, len(data), 97):
            with pytest.raises(ValueError, match="can't be read"):
                codec.loads(data[:cut] + b"" if cut else b"")
        for at in range(80, len(data), 41):
            try:
                codec.loads(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
            except ValueError:
                pass
    for size in ([20_000, 5_000], [-1, 5], [3, 3]):
        with (
            mock.patch.object(sys.modules["PIL.Image"], "frombytes") as take_memory,
            pytest.raises(ValueError, match="can't be read"),
        ):
            codec.loads(message(marked(24, "RGB", size, None, {}, 0)))
        assert not take_memory.called, size


def test_an_extension_type_of_arrow_is_not_read(libraries):
    arrow = sys.modules["pyarrow"]
    table = arrow.table({"a": arrow.array([b"1" * 16], arrow.uuid().storage_type)})
    table = table.cast(arrow.schema([("a", arrow.uuid())]))
    sink = arrow.BufferOutputStream()
    with arrow.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    data = sink.getvalue().to_pybytes()
    body = msgpack.packb(marked(23, "pandas", False, None, len(data)))
    head = b"\xc1" + len(body).to_bytes(4, "little") + body
    with pytest.raises(ValueError, match="an extension type"):
        codec.loads(head + bytes(-len(head) % 64) + data + bytes(-len(data) % 64))
