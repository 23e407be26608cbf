"""The publisher adds the objects of an S3 prefix to a dataset, each once, on moto's server."""

import os
import time

import pytest
from tests.s3 import Context

from efsstate import EfsStateError, dataset, publisher
from efsstate.publishing import parts

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def put(s3, **objects):
    for name, body in objects.items():
        s3.put_object(Bucket=s3.bucket, Key=f"raw/{name}.jsonl.gz", Body=body)


def publish(s3, seconds=60):
    event = {"source": f"s3://{s3.bucket}/raw/", "dataset": "reviews"}
    return publisher.handler(event, Context(seconds))


def test_each_object_is_a_part_once(s3):
    put(s3, a=b"1", b=b"22", c=b"")
    answer = publish(s3)
    assert (answer["finished"], answer["added"], answer["files"]) == (True, 3, 3)
    ds = dataset("reviews")
    assert sorted(part.size for part in ds.parts()) == [0, 1, 2]
    assert {part.suffix for part in ds.parts()} == {".jsonl.gz"}
    assert publish(s3)["added"] == 0 and len(ds.parts()) == 3
    assert ds.freeze("s").verify() == []


def test_a_changed_object_is_another_part(s3):
    put(s3, a=b"old")
    publish(s3)
    put(s3, a=b"new", b=b"more")
    assert publish(s3)["added"] == 2
    assert sorted(bytes(data) for _, data in dataset("reviews").freeze("s").read()) == sorted(
        [b"old", b"new", b"more"]
    )


def test_what_was_removed_or_pruned_is_not_fetched_again(s3, monkeypatch):
    put(s3, a=b"personal", b=b"old", c=b"kept")
    publish(s3)
    ds = dataset("reviews")
    by_size = {part.size: part for part in ds.parts()}
    ds.remove(by_size[8])
    os.utime(by_size[3].path, (0, 0))
    assert ds.prune(older_than="1d") == [by_size[3]]
    monkeypatch.setattr(parts, "_add", None)  # nothing is fetched
    answer = publish(s3, seconds=4)
    assert answer["finished"] and answer["added"] == 0 and ds.parts() == [by_size[4]]


def test_an_object_may_have_any_key(s3):
    """No part is named after its object."""
    keys = ["p", "p/b", "p//x", "x" * 300, "bell\a", "dir/"]
    for key in keys:
        s3.put_object(Bucket=s3.bucket, Key=f"raw/{key}", Body=key.encode())
    assert publish(s3)["added"] == len(keys) and publish(s3)["added"] == 0
    contents = [bytes(data) for _, data in dataset("reviews").freeze("s").read()]
    assert sorted(contents) == sorted(map(str.encode, keys))


def test_a_call_that_is_cut_off_is_continued(s3, monkeypatch):
    put(s3, **{f"n{i}": b"x" * 10 for i in range(12)})
    add, count = parts._add, 0

    def slow(*arguments):
        nonlocal count
        count += 1
        time.sleep(0.7 if count > 4 else 0)
        return add(*arguments)

    monkeypatch.setattr(parts, "_add", slow)
    calls = [publish(s3, seconds=4)]
    while not calls[-1]["finished"]:
        assert len(calls) < 20
        calls.append(publish(s3, seconds=4))
    assert len(dataset("reviews").parts()) == 12
    assert dataset("reviews").freeze("s").verify() == []


def test_too_little_time_is_told(s3, monkeypatch):
    put(s3, a=b"1", b=b"2")
    monkeypatch.setattr(parts, "_add", lambda *_: time.sleep(9))
    with pytest.raises(EfsStateError, match="sufficed for no object"):
        publish(s3, seconds=2)


@pytest.mark.parametrize(
    "event",
    [
        {"source": "s3://b/k", "dataset": "a--b"},
        {"source": "s3://b/k", "dataset": "d", "model": "m"},
        {"source": "x", "dataset": "d"},
    ],
)
def test_a_bad_event_is_a_value_error(s3, event):
    with pytest.raises(ValueError, match=r"dataset name|event|source"):
        publisher.handler(event, Context(60))


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.json", ".json"), ("x/b.tar.gz", ".tar.gz"), ("c", ""), (".d", ""), ("e.a b", "")],
)
def test_the_end_of_a_name_is_kept(name, suffix):
    assert parts.suffix_of(name) == suffix
