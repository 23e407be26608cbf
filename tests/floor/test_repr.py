"""Each object that a program can get says what it is: none shows as `<… object at 0x…>`."""

import importlib
import inspect
import re

import pytest

from efsstate import (
    AsyncCache,
    Cache,
    cached,
    checkpoint,
    current,
    dataset,
    invocation,
    model,
    publish,
    sweep,
    versions,
    workers,
)
from efsstate.deadline import Invocation

MODULES = ["efsstate", "efsstate.testing", "efsstate.metrics", "efsstate.workers"]
MODULES += ["efsstate.adapters." + name for name in ("cachelib", "django", "dogpile", "durable")]
DEFAULT = re.compile(r"object at 0x|\b1 (files|parts|entries|environments|invocations)\b")


def public(name):
    """Return the public names of a module with their values."""
    module = importlib.import_module(name)
    names = getattr(module, "__all__", None) or [
        each
        for each, value in vars(module).items()
        if each[0] != "_" and getattr(value, "__module__", None) == name
    ]
    return {each: getattr(module, each) for each in names}


@pytest.mark.parametrize("name", MODULES)
def test_each_public_class_has_a_repr_of_its_own(name):
    classes = [value for value in public(name).values() if inspect.isclass(value)]
    lacking = [
        value.__name__
        for value in classes
        if value.__repr__ is object.__repr__ and not is_function_at_run_time(value)
    ]
    assert lacking == []


def test_no_signature_shows_an_object_without_a_name():
    """As help() prints it: a default that stands for "nothing" says so."""
    shown = []
    for value in public("efsstate").values():
        members = vars(value).values() if inspect.isclass(value) else [value]
        functions = filter(inspect.isfunction, members)
        shown += [f"{each.__qualname__}{inspect.signature(each)}" for each in functions]
    assert len(shown) > 100 and [text for text in shown if "object at 0x" in text] == []


def is_function_at_run_time(value):
    """Return True for the types of decorated functions: what a program holds is the function."""
    return value.__module__ == "efsstate.cache.function_types"


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("EFSSTATE_ROOT", str(tmp_path))
    return tmp_path


def of_caches(root):
    @cached(ttl="1h", name="squares")
    def square(number):
        return number * number

    cache = Cache("results")
    yield from (square.cache_info(), cache, cache.info(), cache.lock("key"))
    yield from (AsyncCache("results"), AsyncCache("results").lock("key"))


def of_checkpoints(root):
    with checkpoint("job") as job:
        items = job.resume(range(3))
        yield from (job, items, job.token, job.status())
        assert list(items) == [0, 1, 2]
    with checkpoint("sharded").shards(3) as shards:
        yield shards
        for shard in shards:
            yield from (shard, shards.progress())
            break
    yield workers.Round(finished=True)


def of_models_and_datasets(root):
    (root / "weights.bin").write_bytes(b"w")
    publish("net", root / "weights.bin")
    files = []
    net = model("net", load=lambda given: files.append(given) or "net")
    yield net
    assert net() == "net"
    yield from (net, *files, *versions("net"))
    reviews = dataset("reviews")
    with reviews.part(".txt") as path:
        (root / path).write_text("good")
    yield from (reviews, path, path.part, reviews.freeze("first"), sweep(), sweep(dry_run=True))


def of_invocations(root):
    outside = Invocation()
    yield outside
    with invocation(seconds=5):
        yield current()

    @invocation
    def handler(event, context):
        return current()

    yield handler({}, None)


def of_testing(root):
    from efsstate.testing import Function, clock

    (root / "app.py").write_text("def handler(event, context):\n    return 1\n")
    yield clock
    with clock.advance("8d") as advance:
        yield from (clock, advance)
    with Function("app.handler", path=str(root)) as function:
        yield function
        environment = function.environment()
        yield from (environment, environment.invoke({}), *environment.inits, function)


def of_adapters(root):
    from django.conf import settings
    from dogpile.cache import make_region

    from efsstate.adapters import cachelib, django, dogpile, durable

    if not settings.configured:
        settings.configure()
    yield from (cachelib.EfsCache("shared"), django.EfsCache("", {}), durable.EfsSerDes("results"))
    region = make_region()
    region.configure_from_config({"backend": "dogpile.cache.memory"}, "")
    backend = dogpile.EfsBackend({"name": "pages"})
    yield from (backend, backend.get_mutex("key"))


KINDS = [of_caches, of_checkpoints, of_models_and_datasets, of_invocations, of_adapters]
KINDS += [pytest.param(of_testing, marks=pytest.mark.runtime)]


@pytest.mark.parametrize("kind", KINDS)
def test_each_object_says_what_it_is(root, kind):
    texts = [repr(each) for each in kind(root)]
    assert texts and [text for text in texts if DEFAULT.search(text)] == []
