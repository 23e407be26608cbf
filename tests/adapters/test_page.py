"""The page's examples, and what the import of an adapter adds to its framework's."""

import ast
import asyncio
import importlib.util
import io
import os
import pathlib
import subprocess
import sys
import tokenize

import pytest

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "adapters.md"
FRAMEWORKS = {
    "aiocache": "aiocache",
    "cachelib": "cachelib",
    "django": "django.core.cache.backends.base",
    "dogpile": "dogpile.cache.api",
    "powertools": "aws_lambda_powertools.utilities.idempotency",
    "durable": "aws_durable_execution_sdk_python.serdes",
    "durable_events": "aws_durable_execution_sdk_python.plugin",
    "fsspec": "fsspec.implementations.chained",
    "joblib": "joblib",
}
NEW = """
import importlib, sys
importlib.import_module(sys.argv[1])
before = set(sys.modules)
importlib.import_module("efsstate.adapters." + sys.argv[2])
added = {name.split(".")[0] for name in set(sys.modules) - before}
print(*sorted(added - set(sys.stdlib_module_names) - {"efsstate"}))
"""


@pytest.mark.parametrize("adapter", FRAMEWORKS)
def test_an_import_adds_nothing_but_the_framework(adapter, environment):
    pytest.importorskip(FRAMEWORKS[adapter].split(".")[0])
    process = subprocess.run(
        [sys.executable, "-c", NEW, FRAMEWORKS[adapter], adapter],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert process.stdout.split() == []


def example(heading, *replaced):
    if not PAGE.exists():
        pytest.skip("only in the source tree")
    section = PAGE.read_text().split(f"\n## {heading}\n")[1]
    names = {}
    code = section.split("```python\n")[1].split("```")[0]
    exec(code.replace(*replaced) if replaced else code, names)
    return names


def test_the_examples_for_powertools_run():
    pytest.importorskip("aws_lambda_powertools")
    names = example("Powertools for AWS Lambda")

    class Context:
        def get_remaining_time_in_millis(self):
            return 1000

    event = {"order": 1}
    assert names["handler"](event, Context()) == names["handler"](event, Context())
    assert os.path.isdir(f"{os.environ['EFSSTATE_ROOT']}/records/orders.86400")
    pytest.importorskip("aws_lambda_powertools.utilities.circuit_breaker", reason="since 3.34")
    breaker = {}
    exec(PAGE.read_text().split("The circuit breaker, in")[1].split("```")[1][7:], breaker)
    breaker["charge"](1)
    assert os.path.isdir(f"{os.environ['EFSSTATE_ROOT']}/records/circuit_breaker.86400")


def test_the_example_for_dogpile_runs():
    api = pytest.importorskip("dogpile.cache")
    try:
        api.register_backend("efsstate", "efsstate.adapters.dogpile", "EfsBackend")
    except ValueError:  # the entry point has done so
        pass
    names = example("dogpile.cache")
    assert names["price"](1) is None
    assert os.path.isdir(f"{os.environ['EFSSTATE_ROOT']}/cache/catalogue")


def test_the_example_for_flask_runs():
    pytest.importorskip("flask_caching")
    flask, markupsafe = pytest.importorskip("flask"), pytest.importorskip("markupsafe")
    names = example("cachelib and Flask-Caching")
    app, cache, calls = names["app"], names["cache"], []
    fragment = "{% cache 60, 'total' %}{{ '<b>total</b>' | safe }}{{ count() }}{% endcache %}"

    def count():
        calls.append(1)
        return len(calls)

    @app.route("/response")
    @cache.cached(key_prefix="response")
    def response():
        return flask.jsonify(count=count())

    @app.route("/fragment")
    def page():
        return flask.render_template_string(fragment, count=count)

    @app.route("/markup")
    @cache.cached()
    def markup():
        return markupsafe.Markup(f"<i>{count()}</i>")

    client = app.test_client()
    for path in ("/response", "/fragment", "/markup"):
        answers = [client.get(path) for _ in range(3)]
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.data for answer in answers}) == 1, path
        assert len({answer.mimetype for answer in answers}) == 1, path
    assert len(calls) == 3
    assert client.get("/response").json == {"count": 1}
    assert os.path.isdir(f"{os.environ['EFSSTATE_ROOT']}/cache/shop")


def test_the_example_for_fsspec_reads_through_the_mount():
    fsspec = pytest.importorskip("fsspec")
    from efsstate.adapters.fsspec import EfsCacheFileSystem

    fsspec.register_implementation("efscache", EfsCacheFileSystem, clobber=True)
    fsspec.filesystem("memory").pipe("/lake/orders.parquet", b"rows and a tail of 8")
    assert example("fsspec", "s3://", "memory://")["tail"] == b"ail of 8"
    assert os.path.isdir(f"{os.environ['EFSSTATE_ROOT']}/cache/fsspec")


def test_the_example_for_aiocache_runs():
    pytest.importorskip("aiocache")
    assert asyncio.run(example("aiocache")["price"](2)) == 4
    assert os.path.isdir(f"{os.environ['EFSSTATE_ROOT']}/cache/shop")


def test_the_example_for_joblib_runs(root):
    pytest.importorskip("joblib")
    assert example("joblib", "/mnt/efs/app", str(root))["fit"](2) == 4
    assert (root / "cache" / "joblib").is_dir()


def test_the_example_for_django_has_our_backend():
    base = pytest.importorskip("django.core.cache.backends.base")
    backend = example("Django")["CACHES"]["default"]
    module, _, name = backend["BACKEND"].rpartition(".")
    kind = getattr(__import__(module, fromlist=[name]), name)
    cache = kind(os.environ["EFSSTATE_ROOT"], backend)
    assert isinstance(cache, base.BaseCache) and cache._cache.name == "shop"


@pytest.mark.parametrize("adapter", FRAMEWORKS)
def test_an_adapter_has_at_most_150_lines_of_code(adapter):
    """Blank lines, comments and docstrings are not counted; more would be a framework of ours."""
    module = importlib.util.find_spec(f"efsstate.adapters.{adapter}")
    source = pathlib.Path(module.origin).read_text()
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT):
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, node.end_lineno + 1))
    print(f"{adapter}: {len(lines)} lines of code")
    assert len(lines) <= 150
