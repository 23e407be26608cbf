"""The page's table of events is what the code emits: kinds, names, fields and types."""

import ast
import datetime as dt
import importlib.util
import os
import pathlib
import re
import time
import types

import pytest

import efsstate
from efsstate import (
    Cache,
    ClaimedError,
    ClaimLost,
    CorruptEntryError,
    cached,
    checkpoint,
    dataset,
    model,
    on_event,
    prune,
    publish,
    sweep,
)
from efsstate.metrics import collector
from efsstate.mount.root import resolve
from efsstate.records.revision import Content
from efsstate.records.store import RecordStore

SOURCE = pathlib.Path(efsstate.__file__).parent
PAGE = pathlib.Path(__file__).parent.parent.parent / "docs" / "observability.md"
TYPES = {"str": str, "int": int, "float": float, "bool": bool}


def table(heading):
    """Return the rows of the first table whose header is `heading`."""
    text = PAGE.read_text()
    block = re.search(rf"^\| {re.escape(heading)} \|\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in block[1].splitlines()]


def field_types():
    return {
        name: TYPES[kind]
        for names, kind, _ in table("field | type | unit")
        for name in names.split(", ")
    }


@pytest.fixture
def happened(tmp_path, tmp_path_factory, monkeypatch):
    """Everything that can happen, as events."""
    monkeypatch.setenv("EFSSTATE_ROOT", str(tmp_path))
    seen = []
    end = on_event(seen.append)
    try:
        use_a_cache(tmp_path)
        use_a_checkpoint()
        use_a_model(tmp_path_factory.mktemp("model") / "m.bin")
        use_a_dataset()
        use_records()
        sweep(older_than=0)
        use_a_durable_function()
    finally:
        end()
    return seen


def use_a_cache(root):
    import threading

    @cached(name="doubled")
    def double(number):
        time.sleep(0.2 if number == 3 else 0)
        return 2 // number

    for _ in range(3):
        double(1)
    with pytest.raises(ZeroDivisionError):
        double(0)
    threads = [threading.Thread(target=double, args=(3,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    double.invalidate(1)
    double(1)
    other = Cache("doubled")
    del other
    entry = next(path for path in (root / "cache").rglob("?" * 48) if path.is_file())
    entry.write_bytes(b"damage")
    cache = Cache("damaged")
    cache.set("k", 1)
    (path,) = (path for path in (root / "cache" / "damaged").rglob("?" * 48) if path.is_file())
    path.write_bytes(b"damage")
    cache.get("k", fresh=True)
    tagged = cached(tags=lambda number: ["odd"], name="tagged")(lambda number: number)
    tagged(1)
    tagged.cache.invalidate_tag("odd")
    double.cache_clear()


def use_a_checkpoint():
    with checkpoint("job") as job:
        with pytest.raises(ClaimedError):
            checkpoint("job").__enter__()
        job.save(1)
        checkpoint("job").break_claim()
        with pytest.raises(ClaimLost):
            job.save(2)
    checkpoint("job").load()


def use_a_model(source):
    for number in range(3):
        source.write_bytes(b"%d" % number)
        version = publish("m", source)
        os.utime(source)
    model("m", load=lambda files: files.read())()
    with pytest.raises(ValueError, match="no"):
        model("m", load=lambda files: int("no"))()
    prune("m", keep=1, grace=0)
    assert version
    efsstate.remove("m")


def use_a_dataset():
    ds = dataset("d")
    part = ds.add(b"1", key="a")
    with ds.part(key="b") as path:
        pathlib.Path(path).write_bytes(b"2")
    snapshot = ds.freeze("s")
    assert len(list(snapshot.read())) == 2
    os.unlink(part.path)
    with pytest.raises(CorruptEntryError):
        list(snapshot.read([part]))
    ds.remove("b")
    ds.forget("s")
    ds.prune(older_than="1d")


def use_records():
    now = int(time.time())
    store = RecordStore(resolve(), "records", 86_400)
    late = store.claim("a", Content("claimed", now + 60, lease=0))
    store.append(store.claim("a", Content("claimed", now + 60)), Content("done", now + 60))
    with pytest.raises(ClaimLost):
        store.append(late, Content("done", now + 60))


def use_a_durable_function():
    """As its SDK calls the plugin; adapters/test_durable.py runs the SDK itself."""
    pytest.importorskip("aws_durable_execution_sdk_python")
    from efsstate.adapters.durable_events import EventsFactory

    state, start = types.SimpleNamespace(value="SUCCEEDED"), dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    info = types.SimpleNamespace(
        name="step", sub_type="Step", attempt=1, is_replayed=False, start_time=start,
        end_time=start, execution_arn="arn", status=state, is_first_invocation=True, outcome=state,
    )  # fmt: skip
    plugin = EventsFactory().create_plugin(info)
    plugin.on_user_function_end(info)
    plugin.on_operation_end(info)
    plugin.on_invocation_end(info)


def test_the_table_is_what_happens(happened):
    rows = {(kind, event): fields for kind, event, fields, _ in table("kind | event | fields |")}
    assert {(event["kind"], event["event"]) for event in happened} == set(rows)
    types = field_types()
    for event in happened:
        fields = set(event) - {"kind", "event", "name"}
        if event["kind"] == "sweep":
            continue
        listed = [name for name in rows[event["kind"], event["event"]].split(", ") if name]
        wanted = {name for name in listed if not name.endswith("?")}
        assert wanted <= fields <= {name.rstrip("?") for name in listed}, event
        for name in fields:
            assert type(event[name]) is types[name], (event, name)


def test_the_page_lists_the_metrics_with_their_units():
    listed = {name: unit for name, unit, _ in table("name | unit | what it means, and what to do")}
    assert listed == collector.UNITS


def test_a_sweeps_event_has_the_reports_fields(happened):
    from efsstate import SweepReport

    (event,) = (event for event in happened if event["kind"] == "sweep")
    assert set(event) == {"kind", "event", "name", *SweepReport().as_dict()}


def test_the_pages_first_example_works(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EFSSTATE_ROOT", str(tmp_path))
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    names = {"__name__": "shop"}
    exec(compile(code, "observability.md", "exec"), names)
    assert names["handler"]({"article": 21}, None) == 42
    assert '"CacheMiss":1' in capsys.readouterr().out


def test_the_picture_of_the_dashboard_is_that_of_the_template():
    path = PAGE.parent.parent / "scripts" / "dashboard.py"
    spec = importlib.util.spec_from_file_location("dashboard", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    picture = (PAGE.parent / "img" / "dashboard.svg").read_text()
    assert script.svg() == picture, "run python scripts/dashboard.py"
    assert picture.count("Alarm</text>") >= 15 and "Hit rate" in picture


def calls(name):
    """Yield each call of a function or method `name` in the package."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = node.func
                if getattr(called, "attr", getattr(called, "id", None)) == name:
                    yield path, node


def literal(node):
    return node.value if isinstance(node, ast.Constant) else None


def test_the_table_has_each_event_that_the_code_emits():
    """Those of the caches' own method `emit` have the kind `cache`."""
    emitted = set()
    for path, call in calls("emit"):
        words = [literal(argument) for argument in call.args]
        is_own = ast.unparse(call.func) != "events.emit"
        if words[:2] == ["cache", None] and path.name == "namespace.py":
            continue  # that method
        emitted.add(("cache", words[0]) if is_own else (words[0], words[1]))
    rows = {(kind, event) for kind, event, _, _ in table("kind | event | fields |")}
    assert emitted == rows


def test_every_log_record_is_structured_and_documented():
    """The page's table of records is that of the calls of `events.log`, with level and fields."""
    written = set()
    for path, call in calls("log"):
        if ast.unparse(call.func) != ("log" if path.name == "events.py" else "events.log"):
            continue
        options = {option.arg: option.value for option in call.keywords}
        kind, event = literal(options.pop("kind")), literal(options.pop("event"))
        options.pop("once", None)
        written.add((literal(call.args[0]), kind, event, ", ".join(sorted(options))))
    rows = table("level | kind | event | fields | what happened, and what to do")
    listed = {
        (level, kind, event, ", ".join(sorted(filter(None, fields.split(", ")))))
        for level, kind, event, fields, _ in rows
    }
    assert len(rows) == len(listed) and written == listed
    assert all(advice for *_, advice in rows)


def test_nothing_is_logged_in_another_way():
    """Only `events` has a logger, so each record has its place in the table."""
    users = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", []) if hasattr(alias, "name")]
            if isinstance(node, ast.Import) and "logging" in names:
                users.add(path.relative_to(SOURCE).as_posix())
            if isinstance(node, ast.ImportFrom) and node.module == "logging":
                users.add(path.relative_to(SOURCE).as_posix())
    assert users == {"events.py"}
