"""The page's table of events is what the code emits: kinds, names, fields and types."""

import os
import pathlib
import re

import pytest

from efsstate import (
    Cache,
    ClaimedError,
    ClaimLost,
    cached,
    checkpoint,
    model,
    on_event,
    prune,
    publish,
    sweep,
)
from efsstate.metrics import collector

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
        sweep(older_than=0)
    finally:
        end()
    return seen


def use_a_cache(root):
    import threading
    import time

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
    listed = {name: unit for name, unit, _ in table("name | unit | when it moves")}
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
