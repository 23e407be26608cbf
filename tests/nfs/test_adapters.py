"""Requests of each adapter's set and get on NFS, beside what its users had on the same mount."""

import asyncio
import os
import pathlib
import re

import pytest

pytestmark = pytest.mark.nfs
PAGE = pathlib.Path(__file__).parents[2] / "docs" / "adapters.md"
VALUE = b"x" * 1024
COUNT = 16


def django(folder, kind):
    pytest.importorskip("django")
    from django.conf import settings

    if not settings.configured:
        settings.configure()
    if kind == "ours":
        from efsstate.adapters.django import EfsCache

        cache = EfsCache(folder, {"OPTIONS": {"memory": 0}})
    else:
        from django.core.cache.backends.filebased import FileBasedCache

        cache = FileBasedCache(folder, {"OPTIONS": {"MAX_ENTRIES": 1000}})
    return cache.set, cache.get


def cachelib(folder, kind):
    pytest.importorskip("cachelib")
    if kind == "ours":
        from efsstate.adapters.cachelib import EfsCache

        cache = EfsCache(root=folder, memory=0)
    else:
        from cachelib import FileSystemCache

        cache = FileSystemCache(folder, threshold=1000)
    return cache.set, cache.get


def dogpile(folder, kind):
    region = pytest.importorskip("dogpile.cache").make_region()
    if kind == "ours":
        from efsstate.adapters.dogpile import EfsBackend

        backend = EfsBackend({"root": folder, "memory": 0})
        return backend.set, backend.get
    region.configure("dogpile.cache.dbm", arguments={"filename": f"{folder}/file.dbm"})
    return region.set, region.get


def joblib(folder, kind):
    joblib = pytest.importorskip("joblib")
    from efsstate.adapters.joblib import EfsStoreBackend

    joblib.register_store_backend("efsstate", EfsStoreBackend)
    options = {"backend": "efsstate", "backend_options": {"memory": 0}} if kind == "ours" else {}
    store = joblib.Memory(folder, verbose=0, **options).store_backend
    return (
        lambda key, value: store.dump_item(["f", key.encode().hex()], value),
        lambda key: (
            store.contains_item(["f", key.encode().hex()])
            and store.load_item(["f", key.encode().hex()])
        ),
    )


def durable(folder, kind):
    serdes = pytest.importorskip("aws_durable_execution_sdk_python.serdes")
    if kind == "ours":
        from efsstate.adapters.durable import EfsSerDes

        files = EfsSerDes(root=folder, inline=0)
    else:
        from aws_durable_execution_sdk_python.filesystem_serdes import FileSystemSerDes

        files = FileSystemSerDes(folder)
    context, texts = (lambda key: serdes.SerDesContext(key, "arn:x/1")), {}

    def write(key, value):
        texts[key] = files.serialize(value.decode(), context(key))
        pathlib.Path(f"{TEXTS}/{key}").write_text(texts[key])

    def read(key):
        text = pathlib.Path(f"{TEXTS}/{key}").read_text()
        return files.deserialize(text, context(key)).encode()

    return write, read


def fsspec(folder, kind):
    """A get is an open and a read of a file that another client has fetched; a set fetches it."""
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    if kind == "ours":
        from efsstate.adapters.fsspec import EfsCacheFileSystem

        files = EfsCacheFileSystem(fs=memory, root=folder, memory=0, skip_instance_cache=True)
    else:
        files = fsspec.filesystem(
            "filecache", fs=memory, cache_storage=folder, check_files=True, skip_instance_cache=True
        )

    def write(key, value):
        if not memory.exists(f"/{key}"):
            memory.pipe(f"/{key}", value)
        files.cat_file(f"/{key}")

    return write, lambda key: files.cat_file(f"/{key}")


def aiocache(folder, kind):
    pytest.importorskip("aiocache")
    from efsstate.adapters.aiocache import EfsCache

    if kind == "theirs":
        pytest.skip("aiocache has no backend for a mount")
    cache = EfsCache(root=folder, memory=0)
    return (
        lambda key, value: asyncio.run(cache.set(key, value)),
        lambda key: asyncio.run(cache.get(key)),
    )


TEXTS = ""
SUBJECTS = [django, cachelib, dogpile, aiocache, joblib, durable, fsspec]


def measure(lab, subject, kind):
    """Requests of a set on one client, and of a get of such a value on the other."""
    folders = [f"{lab.path(client)}/{kind}" for client in "ab"]
    os.makedirs(folders[0], exist_ok=True)
    write, _ = subject(folders[0], kind)
    for number in range(64):
        write(f"warm-{number}", VALUE)
    with lab.count("a") as written:
        for number in range(COUNT):
            write(f"key-{number}", VALUE)
    _, read = subject(folders[1], kind)
    for number in range(64):
        assert read(f"warm-{number}") == VALUE
    with lab.count("b") as gotten:
        for number in range(COUNT):
            assert read(f"key-{number}") == VALUE
    return written.total / COUNT, gotten.total / COUNT


def page():
    """The rows of the page's table: (set, get) of ours and of theirs, by adapter."""
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \| ([\d.]+|) ?\| ([\d.]+|) ?\|",
                      PAGE.read_text(), re.MULTILINE)  # fmt: skip
    return {name: [float(number or 0) for number in numbers] for name, *numbers in rows}


@pytest.mark.parametrize("kind", ["ours", "theirs"])
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.__name__)
def test_requests_are_those_of_the_page(lab, subject, kind, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "TEXTS", str(tmp_path))
    figures = measure(lab, subject, kind)
    print(f"{subject.__name__} {kind}: set {figures[0]:.2f}, get {figures[1]:.2f}")
    row = page().get(subject.__name__, [0] * 4)[0 if kind == "ours" else 2 :][:2]
    assert row[0], "the page has no such row"
    if subject is durable and kind == "theirs":  # its envelope has the writer's path
        figures = (figures[0], 0)
    for figure, listed in zip(figures, row, strict=True):
        assert abs(figure - listed) <= max(0.25, 0.25 * listed), (figures, row)
