"""Two functions are one cache only if they are one function: by name, version and closure."""

import asyncio
import collections
import functools
import math
import multiprocessing
import opcode
import os
import subprocess
import sys
import textwrap
from typing import TypeVar

import pytest

import efsstate
from efsstate import cached
from efsstate.cache import captured
from efsstate.cache.fingerprint import of_function

SOURCE = os.path.dirname(os.path.dirname(efsstate.__file__))


def timed(fn):
    def wrapper(x):
        return fn(x)

    return wrapper


def test_a_decorator_without_wraps_captures_its_function():
    a, b = cached(timed(abs)), cached(timed(str))
    assert (a(-1), b(-1), a(-1), b(-1)) == (1, "-1", 1, "-1")
    assert a.cache.name != b.cache.name
    assert a.cache_info().hits == b.cache_info().hits == 1
    a.cache_clear()
    assert a.cache_info().hits == 0 and b.explain(-1).startswith("hit")


def capturing(value, **options):
    @cached(**options)
    def f(x):
        return value, x

    return f


def double(x):
    return 2 * x


def scaled(factor):
    def scale(x, by=factor):
        return by * x

    return scale


def nested(outer):
    def inner(x):
        return outer(x)

    return inner


@cached
def triple(x):
    return 3 * x


def wrapped(factor):
    @functools.wraps(triple)
    def wrapper(x):
        return factor * triple(x)

    return wrapper


class Client:
    def get(self, key):
        return self, key


def with_attribute(value):
    def plain(x):
        return x

    plain.factor = value
    return plain


VALUES = [
    1, True, 1.0, "1", b"1", None, (1, 2), [1, 2], {"a": 1}, {1, 2},
    abs, str, math, math.sin, collections.OrderedDict, double, lambda x: x + 1, lambda x: x + 2,
    scaled(2), scaled(3), nested(abs), nested(double), nested(nested(abs)), nested(scaled(2)),
    "a".upper, "b".upper, str.upper, str.lower,
    functools.partial(double, 1), functools.partial(double, 2), functools.partial(double, x=1),
    functools.lru_cache(scaled(5)), cached(scaled(6)), triple, wrapped(2), wrapped(3),
    with_attribute(2), with_attribute(3), functools.lru_cache(with_attribute(2)),
    ("module", "math"), lambda x=0, /, **rest: rest, lambda x=0, **rest: rest, TypeVar("T"),
]  # fmt: skip


def test_captured_variables_count():
    """By value, a function by its code, its defaults and what it captures itself."""
    names = [capturing(value).cache.name for value in VALUES]
    assert len(set(names)) == len(names)
    assert [capturing(value).cache.name for value in VALUES] == names


class Shifted(functools.partial):
    def __call__(self, x):
        return self.shift + super().__call__(x)


@pytest.mark.parametrize(
    "value",
    [Client(), Client().get, [Client()], object(), iter([]), Shifted(double)],
    ids=str,
)
def test_a_captured_object_is_refused_with_the_ways_out(value):
    with pytest.raises(TypeError) as caught:
        capturing(value)
    for way in ("'value'", "as a parameter", "name=", "ignore='value'"):
        assert way in str(caught.value)
    first, second = capturing(value, name="one"), capturing(5, name="one")
    assert first.cache_key(1) == second.cache_key(1)
    assert capturing(value, ignore="value").cache_key(1) == capturing(5, ignore="value").cache_key(
        1
    )


CONSTANTS = [
    lambda: 1, lambda: 1.0, lambda: True, lambda: 1j, lambda: "1", lambda: b"1", lambda: None,
    lambda: "None", lambda: ..., lambda: "...", lambda: 0.0, lambda: -0.0, lambda: (1,),
    lambda: (True,), lambda: (...,), lambda: ("...",), lambda: 1 in {1, ...},
    lambda: 1 in {1, "..."}, lambda: 1 in {True, ...}, lambda: (lambda: ...),
    lambda: (lambda: "..."),
]  # fmt: skip


def test_constants_of_captured_functions_count_by_type_and_value():
    names = [capturing(function).cache.name for function in CONSTANTS]
    assert len(set(names)) == len(names)


def test_the_place_of_none_among_the_constants_counts():
    texts = [f"def f(x):\n    'Text.'\n    return x({pair})" for pair in ("None, 'a'", "'a', None")]
    first, second = (capturing(compiled(text)).cache.name for text in texts)
    assert first != second


def test_attributes_of_captured_functions_count():
    def itself(factor):
        def f(x):
            return x * f.factor

        f.factor = factor
        return cached(f)

    def wrapping(factor):
        @functools.wraps(double)
        def wrapper(x):
            return double(x) * wrapper.factor

        wrapper.factor = factor
        return cached(wrapper)

    def read_by_the_wrapper(factor):
        def g(x):
            return x

        def reading(function):
            @functools.wraps(function)
            def wrapper(x):
                return function(x) * function.factor

            return wrapper

        g.factor = factor
        return cached(reading(g))

    def set_after_the_decoration(factor):
        @cached
        def f(x):
            return x * f.factor

        f.factor = factor
        return f

    for make in (itself, wrapping, read_by_the_wrapper, set_after_the_decoration):
        two, three, again = make(2), make(3), make(2)
        assert three(5) * 2 == two(5) * 3 and again(5) == two(5)
        assert again.cache_info().misses == 0, make
    with pytest.raises(TypeError, match="captured variable 'f'"):
        itself(Client())
    with pytest.raises(TypeError, match="captured variable 'function'"):
        read_by_the_wrapper(Client())
    with pytest.raises(TypeError, match="captured variable 'f'"):
        set_after_the_decoration(Client())(5)


def test_attributes_that_no_code_reads_are_let_be():
    """Frameworks set them: marks of pytest, options of click."""

    def marked():
        def plain(x):
            return x

        plain.options, plain.__options__ = [Client()], [1]
        return plain

    assert capturing(marked())(1)[1] == 1
    assert capturing(with_attribute(2)).cache.name == capturing(with_attribute(2)).cache.name
    marking = wrapped(2)
    marking.client = Client()
    assert cached(timed(marking))(2) == 12


def test_a_function_that_counts_its_calls_is_one_cache():
    @cached
    def f(x):
        f.calls += 1
        return x

    f.calls = 0
    assert [f(1), f(2), f(1), f(2)] == [1, 2, 1, 2] and f.calls == 2


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax is of Python 3.12")
def test_a_generic_function_captures_its_type_parameters():
    space = {"__name__": __name__, "cached": cached}
    exec(
        "import typing\n"
        "@cached\n"
        "def same[T, **P, *Ts](x: T) -> T: return typing.cast(T, x), P and Ts and 1\n"
        "class Box[T]:\n"
        "    @staticmethod\n"
        "    @cached\n"
        "    def same(x): return typing.cast(T, x)\n",
        space,
    )
    assert space["same"](1) == (1, 1) and space["Box"].same("a") == "a"


class Base:
    @staticmethod
    def factor():
        return 2


class Sub(Base):
    @staticmethod
    def factor():
        return 3

    @classmethod
    @cached
    def inherited(cls, x):
        return x * super().factor()

    @staticmethod
    @cached
    def own(x):
        return x * __class__.factor()


def test_a_method_may_name_its_class():
    """The class is told by the name of the method's cache."""
    assert (Sub.inherited(5), Sub.own(5)) == (10, 15)
    assert Sub.own.cache.name == f"{__name__}.Sub.own"


def test_a_method_that_names_a_class_of_a_function_is_refused():
    def make(number, **options):
        class Local:
            factor = number

            @staticmethod
            @cached(**options)
            def times(x):
                return x * __class__.factor

        return Local

    with pytest.raises(TypeError, match="captured variable '__class__': the class"):
        make(2).times(10)
    assert make(2, ignore="__class__").times(10) == make(3, ignore="__class__").times(10) == 20
    assert make(3, name="three").times(10) == 30


def test_a_variable_that_is_set_after_the_decoration_counts():
    def make(value, late):
        @cached
        def f(x):
            return number, x

        number = value if late else None
        return f

    assert make(1, late=True)(0) == (1, 0) and make(2, late=True)(0) == (2, 0)
    with pytest.raises(TypeError, match="captured variable 'number'"):
        make(Client(), late=True)(0)


def test_a_function_that_captures_itself_is_one_cache():
    def make():
        @cached
        def fib(n):
            return n if n < 2 else fib(n - 1) + fib(n - 2)

        return fib

    first, second = make(), make()
    assert first(10) == 55 and second(10) == 55
    assert second.cache_info().misses == 0 and first.cache.name.endswith("fib")


class Times:
    """A decorator that is a class: it keeps its options, as retries and timers do."""

    def __init__(self, function, factor):
        functools.update_wrapper(self, function)
        self.function, self.factor = function, factor

    def __call__(self, x):
        return self.factor * self.function(x)


class SlottedTimes(Times):
    __slots__ = ("factor",)


@pytest.mark.parametrize("kind", [Times, SlottedTimes])
def test_what_the_object_of_a_decorator_keeps_counts(kind):
    two, three, again = (cached(kind(double, factor)) for factor in (2, 3, 2))
    assert (two(5), three(5), two(5), three(5)) == (20, 30, 20, 30)
    assert again(5) == 20 and again.cache_info().misses == 0
    assert two.cache.name.startswith(f"{double.__module__}.double[")
    with pytest.raises(TypeError, match="captured variable 'factor'"):
        cached(kind(double, Client()))
    assert cached(name="named")(kind(double, Client())).cache.name == "named"


@pytest.mark.parametrize(("kind", "two", "three"), [(dict, {0: 2}, {0: 3}), (list, [2], [3])])
def test_what_the_object_of_a_decorator_holds_counts(kind, two, three):
    class Table(kind):
        def __call__(self, x):
            return x * self[0]

    first, second = (
        cached(functools.update_wrapper(Table(content), double)) for content in (two, three)
    )
    assert (first(5), second(5)) == (10, 15)


@pytest.mark.heavy
def test_what_a_decorator_of_wrapt_captures_counts():
    """Its object says that it is the function inside, by class, name and code."""
    wrapt = pytest.importorskip("wrapt")

    def times(factor):
        @wrapt.decorator
        def scaled(wrapped, instance, args, kwargs):
            return factor * wrapped(*args, **kwargs)

        return scaled(double)

    two, three, plain = cached(times(2)), cached(times(3)), cached(double)
    assert (two(5), three(5), plain(5)) == (20, 30, 10)
    with pytest.raises(TypeError, match="captured variable 'value'"):
        capturing(times(2))


class Lazy:
    """A lazy proxy, whose loading fails: it loads to say which class it is of."""

    @property
    def __class__(self):
        raise RuntimeError("loaded")


def test_a_lazy_proxy_that_is_captured_is_refused_unloaded():
    with pytest.raises(TypeError, match="captured variable 'value'"):
        capturing(Lazy())


def test_a_class_that_a_function_makes_is_refused():
    def make(factor):
        class Product:
            def __new__(cls, x):
                return factor * x

        return Product

    with pytest.raises(TypeError, match="a class that a function makes"):
        cached(make(2))
    assert cached(name="product")(make(2))(5) == 10


@pytest.mark.parametrize("memory", [None, 0])
def test_a_variable_that_is_bound_again_counts(memory):
    def make(factor):
        @cached(memory=memory)
        def f(x):
            return factor * x

        def rebind(value):
            nonlocal factor
            factor = value

        return f, rebind

    f, rebind = make(2)
    assert [f(5), f(5)] == [10, 10]
    rebind(3)
    assert [f(5), f(5), f(6)] == [15, 15, 18]
    rebind(2)
    assert [f(5), f.cache_info().misses] == [10, 3]
    assert make(2)[0](5) == 10
    rebind(Client())
    with pytest.raises(TypeError, match="captured variable 'factor'"):
        f(5)


def page(x, y=2):
    return x, y


def swapped(function):
    """Return a wrapper of `function`, and a function that has it wrap another."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    def swap(other):
        nonlocal function
        function = other

    return wrapper, swap


@pytest.mark.parametrize("options", [{}, {"name": "pages"}])
def test_another_function_in_a_wrapper_counts(options):
    wrapper, swap = swapped(page)
    f = cached(**options)(wrapper)
    if not options:
        assert [f(5), f(5), f(5, 2)] == [(5, 2)] * 3 and f.cache_info().misses == 1
        assert f.cache.name == cached(page).cache.name
    swap(lambda x, y=9: (x, y))
    assert [f(5), f(5), f(5, 2)] == [(5, 9), (5, 9), (5, 2)]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_default_that_is_replaced_counts(is_async):
    def decorate(function):
        if not is_async:
            return cached(function), function

        async def awaited(x, y=2, *, z=0):
            return function(x, y, z=z)

        outer = cached(awaited)
        return (lambda *args: asyncio.run(outer(*args))), awaited

    def add(x, y=2, *, z=0):
        return x, y, z

    f, changed = decorate(add)
    assert [f(1), f(1, 2)] == [(1, 2, 0)] * 2
    changed.__defaults__ = (5,)
    assert [f(1), f(1, 2)] == [(1, 5, 0), (1, 2, 0)]
    changed.__kwdefaults__["z"] = 6
    assert f(1) == (1, 5, 6)
    changed.__kwdefaults__ = {"z": 7}
    assert f(1) == (1, 5, 7)


def test_a_coroutines_variable_that_is_bound_again_counts():
    async def run():
        factor = 2

        @cached
        async def f(x):
            return factor * x

        before = await f(5)
        factor = 3
        return before, await f(5), await f(5)

    assert asyncio.run(run()) == (10, 15, 15)


def test_functions_of_a_loop_capture_what_its_variable_is_at_the_end():
    def make(count):
        return [cached(lambda x: x * number) for number in range(count)]

    assert [f(1) for f in make(3)] == [2, 2, 2]
    assert [f(1) for f in make(5)] == [4, 4, 4, 4, 4]


def test_functions_that_capture_each_other_are_described():
    def make(number):
        def even(n):
            return n == 0 or odd(n - 1)

        def odd(n):
            return n != 0 and even(n - number)

        return capturing(even)

    assert make(1).cache.name == make(1).cache.name != make(2).cache.name


def test_what_wraps_leaves_the_functions_name_to_it():
    """The function inside counts by its name, and what it captures by value."""

    def passing(function):
        @functools.wraps(function)
        def wrapper(*args):
            return function(*args)

        return wrapper

    def make(factor):
        @cached
        @passing
        def f(x):
            return factor * x

        return f

    assert (make(2)(3), make(5)(3)) == (6, 15)
    assert cached(passing(double)).cache.name == cached(double).cache.name


def run(folder, *command, **env):
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": SOURCE} | env,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


SCRIPT = """
from efsstate import cached
from efsstate.cache.keys import KeyBuilder
@cached
def load(x): return __file__ + str(x)
class Kind: pass
if __name__ == "__main__": print(load.cache.name, load(1), KeyBuilder("n", None).digest(Kind))
"""


def test_scripts_of_one_name_are_two_programs(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "main.py").write_text(SCRIPT)
    a, b = (run(tmp_path, f"{name}/main.py") for name in ("a", "b"))
    assert a[0] == f"{tmp_path}/a/main.load" and a[1] == f"{tmp_path}/a/main.py1"
    assert b[0] == f"{tmp_path}/b/main.load" and b[1] == f"{tmp_path}/b/main.py1"
    assert a[2] != b[2]
    assert run(tmp_path / "a", "main.py") == a
    assert run(tmp_path / "a", "-m", "main")[0] == "main.load"
    assert run(tmp_path, "a/main.py", AWS_LAMBDA_FUNCTION_NAME="fn")[0] == "fn/main.load"


SPAWNING = """
import multiprocessing, sys
from efsstate import cached
@cached
def load(x): return sys.argv[1]
def work(queue): queue.put((load.cache.name, load.explain(1)))
if __name__ == "__main__":
    print(load.cache.name, load(1))
    context = multiprocessing.get_context(sys.argv[1])
    queue = context.Queue()
    process = context.Process(target=work, args=(queue,))
    process.start()
    print(*queue.get(timeout=60))
    process.join()
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
@pytest.mark.parametrize("command", [["job.py"], ["-m", "job"]])
def test_a_child_names_its_functions_as_the_parent(tmp_path, method, command):
    assert method in multiprocessing.get_all_start_methods()
    (tmp_path / "job.py").write_text(SPAWNING)
    parent, _, child, *explained = run(tmp_path, *command, method)
    assert parent == child and explained[0] == "hit:"


TYPED = textwrap.dedent(
    """
    from efsstate import cached
    def load(x): return x
    print(cached(load).cache.name, cached(load).cache.name == cached(load).cache.name)
    """
)


def test_functions_that_were_typed_in_are_the_sessions_own(tmp_path):
    names = set()
    for _ in range(2):
        for command in (["-c", TYPED], ["-"]):
            done = subprocess.run(
                [sys.executable, *command],
                input=TYPED,
                env=os.environ | {"PYTHONPATH": SOURCE},
                capture_output=True,
                text=True,
                check=True,
            )
            name, is_one = done.stdout.split()
            assert is_one == "True" and name.startswith("__main__@") and name.endswith(".load")
            names.add(name)
    assert len(names) == 4


def test_functions_of_a_module_are_named_by_it():
    assert cached(double).cache.name == f"{__name__}.double"
    assert efsstate.cached is cached


# Versions


def test_a_version_may_be_a_function():
    version, calls = ["a"], []

    @cached(version=lambda: version[0])
    def f(x):
        calls.append(x)
        return version[0], x

    assert f(1) == f(1) == ("a", 1) and calls == [1]
    version[0] = "b"
    assert f(1) == f(1) == ("b", 1) and calls == [1, 1]
    version[0] = "a"
    assert f(1) == ("a", 1) and calls == [1, 1] and f.peek(1) == ("a", 1)
    for other in (1, True, "1", ("a",), None):
        version[0] = other
        assert f(2) == (other, 2) and f(2)[0] is other
    assert len(calls) == 7


def test_a_versions_error_reaches_the_caller():
    @cached(version=lambda: {}["missing"])
    def f(x):
        return x

    with pytest.raises(KeyError, match="missing"):
        f(1)
    with pytest.raises(TypeError, match="version=: a value of type"):
        cached(version=lambda: Client())(double)(1)  # noqa: PLW0108 - a class is a version itself


def test_a_result_that_outlived_its_version_is_not_kept():
    version, calls = ["a"], []

    @cached(name="f", version=lambda: version[0])
    def f(x):
        calls.append(x)
        version[0] = "b"
        return x

    assert f(1) == 1
    version[0] = "a"
    assert f(1) == 1 and calls == [1, 1]
    assert f.explain(1) == "miss: there is no result"


@pytest.fixture
def published(tmp_path):
    def put(text):
        folder = tmp_path / f"source-{text}"
        folder.mkdir(exist_ok=True)
        (folder / "weights").write_text(text)
        return efsstate.publish("words", folder)

    return put


def load_text(files):
    return bytes(files.read("weights")).decode()


def test_what_wraps_a_cached_function_needs_another_name():
    """Under one name the two would share results."""
    for function in (triple, wrapped(2)):
        with pytest.raises(TypeError, match="is cached under this name already; pass a name="):
            cached(function)
    assert cached(name="six")(wrapped(2))(1) == 6 and triple(1) == 3
    assert cached(timed(wrapped(2)))(2) == 12


def test_without_an_active_version_there_are_no_results():
    """All else goes on, as without a mount."""
    words = efsstate.model("words", load=load_text)
    f = cached(name="f", version=words)(lambda x: x + 1)
    assert (f(1), f.map([1, 2]), f.refresh(1), f.set(5, 1), f.invalidate(1)) == (
        2, [2, 3], 2, None, False,
    )  # fmt: skip
    assert f.explain(1) == (
        "miss: the call has no key now: no version of its model is active, or see the log"
    )
    with pytest.raises(KeyError, match="no result"):
        f.peek(1)
    with pytest.raises(LookupError, match=r"no key now; .* activate a version"):
        f.cache_key(1)
    for call in (f.peek, f.cache_key, f.invalidate):
        with pytest.raises(TypeError, match="does not take these arguments"):
            call(1, 2)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_version_may_be_a_model(published, is_async, apart):
    """Another version that is activated computes anew, whether the model is loaded or not."""
    import asyncio

    calls = []
    words = efsstate.model("words", load=load_text, check_every=0)

    @cached(name="f", version=words)
    def f(x):
        calls.append(x)
        return words(), x

    @cached(name="f", version=words)
    async def g(x):
        calls.append(x)
        return words(), x

    call = (lambda x: asyncio.run(g(x))) if is_async else f
    with pytest.raises(efsstate.ModelNotFound):
        call(1)
    calls.clear()
    first = published("one")
    assert call(1) == call(1) == ("one", 1) and calls == [1]
    published("two")
    assert call(1) == call(1) == ("two", 1) and calls == [1, 1]
    efsstate.activate("words", first)
    assert call(1) == ("one", 1) and calls == [1, 1]
    # Another environment, that has not loaded the model, needs it no more than the key.
    apart()
    fresh = efsstate.model("words", load=load_text)
    again = cached(name="f", version=fresh)(f.__wrapped__)
    assert again(1) == ("one", 1) and fresh.version is None and calls == [1, 1]


def test_a_result_of_a_model_that_was_swapped_meanwhile_is_not_kept(published):
    published("one")
    words = efsstate.model("words", load=load_text, check_every=0)
    calls = []

    @cached(name="f", version=words)
    def f(x):
        calls.append(words())
        if len(calls) == 1:
            published("two")
            words()
        return calls[-1]

    assert f(1) == "one" and f(1) == "two" == f(1) and calls == ["one", "two"]


# Changed code


def compiled(text, name="f"):
    space = {"__name__": "deployed"}
    exec(text, space)
    return space[name]


CODES = [
    "def f(x): return x + 1",
    "def f(x): return x - 1",
    "def f(x): return x + 2",
    "def f(x):\n    if x: return x\n    return 2",
    "def f(x): return (lambda y: y)(x)",
    "def f(x): return (lambda y: y + 1)(x)",
]


@pytest.mark.parametrize("memory", [0, None])
@pytest.mark.parametrize("index", range(1, len(CODES)))
def test_a_result_of_other_code_is_served_with_one_warning(index, memory, apart, caplog):
    old = cached(memory=memory)(compiled(CODES[0]))
    assert [old(number) for number in range(3)] == [1, 2, 3]
    apart()
    assert cached(memory=memory)(compiled(CODES[0]))(0) == 1 and not caplog.records
    apart()
    new = cached(name="deployed.f", memory=memory)(compiled(CODES[index]))
    assert [new(number) for number in range(3)] == [1, 2, 3]
    assert new.map([0, 1]) == [1, 2]
    (record,) = caplog.records
    assert "version=" in record.getMessage() and record.efsstate == {
        "kind": "cache",
        "event": "other_code",
        "name": "deployed.f",
    }


@pytest.mark.parametrize(
    "text",
    [
        "def f(x): return x + 1  # a comment",
        "\n\n\ndef f(x):\n    '''Another docstring.'''\n\n    return x + 1",
        "def f(x: int) -> int: return x + 1",
    ],
)
def test_code_that_does_the_same_is_not_warned_of(text, apart, caplog):
    cached(name="f")(compiled("def f(x):\n    'A docstring.'\n    return x + 1"))(0)
    apart()
    assert cached(name="f")(compiled(text))(0) == 1 and not caplog.records


def test_the_code_of_what_is_wrapped_is_noticed(apart, caplog):
    def passing(function):
        @functools.wraps(function)
        def wrapper(*args):
            return function(*args)

        return wrapper

    cached(name="f")(passing(compiled(CODES[0])))(0)
    apart()
    cached(name="f")(passing(compiled(CODES[1])))(0)
    assert len(caplog.records) == 1


def test_code_that_is_replaced_in_a_running_process_is_noticed(caplog):
    """By the calls that are not remembered, as after a deployment."""
    f = cached(name="f", memory=0)(compiled(CODES[0]))
    assert f(0) == 1
    f.__wrapped__.__code__ = compiled(CODES[1]).__code__
    assert [f(0), f(1), f(1)] == [1, 0, 0]
    assert [record.efsstate["event"] for record in caplog.records] == ["other_code"]


def test_a_docstring_that_the_code_returns_is_no_mere_docstring():
    texts = [f'def f(x):\n    "{text}"\n    return "{text}"' for text in ("v1", "v2")]
    texts += [f'def f(x):\n    "{text}"\n    return [x, "{text}"]' for text in ("v1", "v2")]
    assert len({of_function(compiled(text)) for text in texts}) == 4
    texts = [f'def f(x):\n    "{text}"\n    return "result"' for text in ("v1", "v2")]
    assert len({of_function(compiled(text)) for text in texts}) == 1


def test_the_operations_that_load_constants_are_known():
    """Those of a running Python: others load tuples of names, or are no code's own."""
    texts = {opcode.opmap.get(name) for name in ("LOAD_CONST", "RETURN_CONST")} - {None}
    assert set(captured._LOADS.get(sys.version_info[:2], texts)) == texts


def test_code_of_another_python_is_not_compared(apart, caplog, monkeypatch):
    from efsstate.cache import fingerprint

    cached(name="f")(compiled(CODES[0]))(0)
    apart()
    monkeypatch.setattr(fingerprint, "_HEAD", fingerprint.MARK + bytes([3, 99]))
    assert cached(name="f")(compiled(CODES[1]))(0) == 1 and not caplog.records


def test_a_function_without_code_has_no_fingerprint(apart, caplog):
    for _ in range(2):
        assert cached(name="f")(len)("ab") == 2
        apart()
    assert cached(name="f")(compiled("def f(obj, /): return 3"))("ab") == 2 and not caplog.records


def test_a_fingerprint_is_no_key_of_the_cache():
    f = cached(name="f")(compiled(CODES[0]))
    f(1)
    f.cache.set("a", 2)
    assert list(f.cache.keys()) == list(efsstate.Cache("f").keys()) == ["a"]


# Methods


class Scale:
    def __init__(self, factor):
        self.factor = factor

    @cached
    def times(self, x):
        return self.factor * x

    @classmethod
    @cached
    def named(cls, x):
        return cls.__name__, x


def test_the_advice_for_a_method_does_not_mislead():
    """`ignore="self"` would give one instance's results to another."""
    with pytest.raises(TypeError) as caught:
        Scale(2).times(10)
    text = str(caught.value)
    assert "a function of the values it uses" in text and "register(Scale, to_parts)" in text
    assert text.endswith("(with ignore='self' all instances and subclasses would share results)")
    with pytest.raises(TypeError, match="with ignore='cls' all instances and subclasses would"):
        type("Local", (Scale,), {}).named(1)
    efsstate.register(Scale, lambda scale: scale.factor)
    assert (Scale(2).times(10), Scale(1).times(10), Scale(2).times(x=10)) == (20, 10, 20)
    assert Scale.times.cache_info().hits == 1


def test_names_of_captured_values_are_not_all_remembered(root, monkeypatch, caplog):
    """A handler may decorate a function in each of its calls; a twin is told of all the same."""
    from efsstate.cache import naming

    monkeypatch.setattr(naming, "_MOST_DECORATED", len(naming._decorated) + 5)
    known = len(naming._decorated)

    def handler(tenant):
        @cached(root=root)
        def fetch(key):
            return tenant, key

        return fetch(1)

    assert [handler(tenant) for tenant in range(20)] == [(tenant, 1) for tenant in range(20)]
    assert len(naming._decorated) == known + 5 and not caplog.text
