"""The Lambda function that copies files from S3, or a hub, to the mount: `handler`."""

from __future__ import annotations

import time
from functools import partial

from efsstate import deadline, process
from efsstate.deadline import Invocation
from efsstate.errors import ClaimedError, DeadlineExceeded, EfsStateError
from efsstate.eviction import incoming
from efsstate.format import layout
from efsstate.modelstore import publication
from efsstate.modelstore.manifest import bad_name
from efsstate.modelstore.patterns import DEFAULT_EXCLUDE, Patterns
from efsstate.modelstore.source import Source
from efsstate.mount import lock
from efsstate.mount import root as roots
from efsstate.mount.drafts import PartialFile
from efsstate.parallel import each
from efsstate.publishing.bucket import CONNECTIONS, Bucket, SourceMoved, default_client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from efsstate.mount.files import Mount
    from efsstate.publishing.bucket import Object


_OPTIONS = ("source", "hub", "secret", "model", "to", "dataset", "version", "activate", "root")
_FILES, _PROGRESS = "files", "PROGRESS"  # in the folder of a copy under way
_PART, _PARTS = 8 << 20, CONNECTIONS  # bytes of a request, requests at a time
_WAIT = 10.0  # seconds for another call with the same event
_SPARE = 5.0  # seconds kept for the end of an invocation
_USAGE = (
    'the event is {"source": "s3://bucket/key or prefix/", "model": name} to publish a version;'
    ' with "dataset", a name, in place of "model" each object is a part, and with "to" the files go'
    ' to a folder below shared-data/; or {"hub": "org/name@revision", "model": name}'
)


def handler(event: dict[str, Any] | None, context: object = None) -> dict[str, object]:
    """Copy from S3 or a hub to the mount; the next call with the same event continues it.

    `event` has

    source: "s3://bucket/key" or "s3://bucket/prefix/"; or
    hub: "org/name@revision", a repository of the Hugging Face hub, for a `model`; `secret` is the
        name of the hub's token in Secrets Manager;
    model: the model to publish it as, with `version` and `activate` as in `efsstate.publish`; or
    dataset: the dataset to which each object is added as a part, unless it is there; or
    to: a folder below shared-data/, "" for that itself.

    Return, and log as a line of JSON, `finished` (if false, call again), `bytes` and `total`,
    `files`, and at the end the `version` or the `path`; of a dataset, how many parts were `added`.
    Raise `ValueError` for a bad event, `EfsStateError` if S3 or the hub refuses, `ClaimedError`
    while another call copies the same.
    """
    options = dict(event or {})
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise ValueError(f"event: {', '.join(map(repr, unknown))}: not known; {_USAGE}")
    with Invocation(context):
        result = run(**options)
    import json

    print(json.dumps({"event": "publish", **result}))  # noqa: T201 - a function's log is its output
    return result


def run(
    source: str = "",
    model: str | None = None,
    to: str | None = None,
    version: str | None = None,
    *,
    dataset: str | None = None,
    hub: str | None = None,
    secret: str | None = None,
    activate: bool = True,
    root: str | None = None,
    client: Any = None,
) -> dict[str, object]:
    """Copy as `handler` does; `client` is boto3's for S3 (with `hub` for Secrets Manager)."""
    if hub is not None:
        if source or to is not None or dataset is not None or model is None:
            raise ValueError(f"event: {_USAGE}")
        from efsstate.publishing import repositories

        layout.model_folder(model)  # raises for a bad name, before anybody is asked
        return repositories.publish(
            hub, model, version=version, activate=activate, secret=secret, root=root, client=client
        )
    if secret is not None:
        raise ValueError(f"event: a secret is for a hub; {_USAGE}")
    if sum(target is not None for target in (model, to, dataset)) != 1:
        raise ValueError(f"event: {_USAGE}")
    if dataset is not None:
        return _copy_parts(source, dataset, root, client)
    if model is not None:
        layout.model_folder(model)  # raises for a bad name, before anything is copied
    elif to and (why := bad_name(to)):
        raise ValueError(f"to: {to!r} can't be a folder below shared-data/: {why}")
    bucket, prefix = _parse(source)
    mount = roots.resolve(root, durable=True)
    store = Bucket(client or default_client(), bucket, source)
    objects = store.list_objects(prefix)
    if model is not None:
        _require_complete(store, objects)
    folder = layout.incoming_folder(_digest(bucket, objects, model, to))
    incoming.remove_abandoned(mount, keep=folder)
    claim = lock.acquire(mount, folder, layout.LOCK, until=deadline.until(_WAIT, margin=_SPARE))
    if claim is None:
        raise ClaimedError(f"{source}: another call copies it at this moment; call again later")
    result: dict[str, object] = {"source": source, "files": len(objects)}
    try:
        copy = _Copy(mount, folder, objects, store, claim)
        result["total"] = copy.total
        try:
            if not copy.run():
                return {**result, "finished": False, "bytes": copy.done}
            _require_claim(claim, source)
            if model is None:
                target = f"{layout.SHARED}/{to}" if to else layout.SHARED
                result["path"] = _move(mount, folder, objects, source, target)
            else:
                _require_whole(mount, folder, objects, source)
                is_single = len(objects) == 1 and objects[0].key == prefix
                path = mount.path_of(f"{folder}/{_FILES}", objects[0].name if is_single else "")
                taken = objects if is_single else _published(objects)
                result["version"] = publication.publish(
                    model,
                    partial(_open_whole, path, taken, source),
                    version=version,
                    is_activated=activate,
                    meta=None,
                    progress=None,
                    root=root,
                )
        except DeadlineExceeded:
            return {**result, "finished": False, "bytes": copy.done}
        except (EfsStateError, ValueError) as error:
            if _is_final(error, is_copied=copy.done == copy.total):
                _clean_up(mount, folder, claim)
            raise
        _clean_up(mount, folder, claim)
    finally:
        claim.release()
        mount.remove_folder(folder)  # if empty: an NFS client cannot while the lock's file is open
    return {**result, "finished": True, "bytes": copy.total}


def _clean_up(mount: Mount, folder: str, claim: lock.Lock) -> None:
    """Remove the copy, unless this call was frozen, and another one has begun it anew."""
    # MUT: a-call-that-was-frozen-removes-no-other-copy
    if claim.is_current():
        incoming.remove(mount, folder)


def _copy_parts(source: str, dataset: str, root: str | None, client: Any) -> dict[str, object]:
    from efsstate.datasets.dataset import Dataset
    from efsstate.publishing import parts

    target = Dataset(dataset, root=root)  # raises for a bad name, before anything is copied
    bucket, prefix = _parse(source)
    store = Bucket(client or default_client(), bucket, source)
    answer = parts.copy(store, store.list_objects(prefix, as_files=False), target)
    return {"source": source, "dataset": dataset, **answer}


def _require_complete(store: Bucket, objects: list[Object]) -> None:
    """Raise EfsStateError if sharded weights are incomplete, before anything is copied."""
    from efsstate.modelstore import completeness

    by_name = {item.name: item for item in objects}
    sizes = {name: item.size for name, item in by_name.items()}
    completeness.require_complete(store.source, sizes, lambda name: store.read(by_name[name]))


def _is_final(error: Exception, *, is_copied: bool) -> bool:
    """Return True if no later call can complete the copy, so that it must not stay.

    1. The source has changed: the next call makes another copy.
    2. All is copied, and no call can publish the files.
    """
    if isinstance(error, SourceMoved):
        return True
    return is_copied and not isinstance(error, ClaimedError)


def _parse(source: str) -> tuple[str, str]:
    """Return the bucket and the key of an s3:// address."""
    address = source if isinstance(source, str) else ""
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not bucket or not address.startswith("s3://"):
        raise ValueError(f"source: {source!r} is not s3://bucket/key; {_USAGE}")
    return bucket, key


def _digest(bucket: str, objects: list[Object], model: str | None, to: str | None) -> str:
    """Return the name of this copy: other content, or another target, is another copy."""
    from hashlib import blake2b

    text = repr((bucket, [tuple(item) for item in objects], model, to))
    return blake2b(text.encode(), digest_size=12).hexdigest()


class _Copy:
    """A copy under way: objects in order, each in windows of parallel ranges.

    `index` and `offset` are the object and the byte that come next; PROGRESS on the mount has them
    as of the last window.
    """

    def __init__(
        self, mount: Mount, folder: str, objects: list[Object], store: Bucket, claim: lock.Lock
    ) -> None:
        self._mount, self._folder, self._objects, self._store = mount, folder, objects, store
        self._claim = claim
        self.total = sum([item.size for item in objects])
        self._index, self._offset = self._read_progress()
        self._slowest = 0.0  # seconds of a window

    @property
    def done(self) -> int:
        """Return how many bytes are on the mount for good."""
        return sum([item.size for item in self._objects[: self._index]]) + self._offset

    def _read_progress(self) -> tuple[int, int]:
        import json

        try:
            data, _ = self._mount.read_stat(self._folder, _PROGRESS, 100)
            index, offset = json.loads(bytes(data))
        except (OSError, ValueError, TypeError) as error:
            process.raise_of_handler(error)
            return 0, 0
        if type(index) is not int or type(offset) is not int:
            return 0, 0
        sizes = [*(item.size for item in self._objects), 1]
        is_sound = 0 <= index < len(sizes) and 0 <= offset < max(1, sizes[index])
        return (index, offset) if is_sound else (0, 0)

    def _write_progress(self) -> None:
        text = f"[{self._index}, {self._offset}]".encode()
        self._mount.replace(self._folder, _PROGRESS, lambda _: (text,), durable=True)

    def run(self) -> bool:
        """Continue; return False if the deadline comes first."""
        start, written = self.done, time.monotonic()
        while self._index < len(self._objects):
            remaining = deadline.remaining()
            if remaining is not None and remaining < _SPARE + 2 * self._slowest:
                if self.done == start and self._slowest == 0.0:
                    raise EfsStateError(
                        f"{self._store.source}: {remaining:.0f} s are too few to copy anything;"
                        " give the function a longer timeout"
                    )
                self._write_progress()
                return False
            started = time.monotonic()
            self._copy_window()
            now = time.monotonic()
            self._slowest = max(self._slowest, now - started)
            if self._offset or now - written > 1:  # not after each of many small files
                self._write_progress()
                written = now
        self._write_progress()
        return True

    def _copy_window(self) -> None:
        """Copy the next ranges of the current object."""
        item = self._objects[self._index]
        above, _, last = item.name.rpartition("/")
        folder = f"{self._folder}/{_FILES}" + (f"/{above}" if above else "")
        end = min(item.size, self._offset + _PARTS * _PART)
        target = PartialFile(self._mount, folder, last)
        # MUT: a-copy-goes-on-behind-bytes-that-are-there
        if target.present < self._offset:
            target.close()
            self._start_over()
            return

        def fetch(start: int) -> None:
            self._store.fetch(item, start, min(end, start + _PART), target)

        try:
            starts = range(self._offset, end, _PART)
            for _ in each(fetch, starts, threads=_PARTS, late=self._late):
                pass
            # Not cut to `end`: a call that was frozen, and lost the claim without notice, would cut
            # off what another has written behind it.
            # MUT: a-call-that-was-frozen-cuts-nothing-off
            target.finish(end if end == item.size else None)
        finally:
            target.close()
        if end == item.size:
            self._index, self._offset = self._index + 1, 0
        else:
            self._offset = end

    def _start_over(self) -> None:
        """Begin with the first byte; raise ClaimedError if another call has finished the copy.

        How bytes that were copied may be gone:

        1. A call is frozen for longer than a lease, and loses the claim without notice.
        2. The next call finishes the copy and removes it. The first goes on, or notes how far it
           came, and is killed.
        """
        _require_claim(self._claim, self._store.source)
        self._index = self._offset = 0

    def _late(self) -> str:
        return f"{self._store.source}: the deadline came while a range was read; call again"


def _require_claim(claim: lock.Lock, source: str) -> None:
    """Raise ClaimedError if another call has finished the copy: it removed the lock's file."""
    # MUT: a-copy-that-another-call-finished-is-not-published
    if not claim.is_current():
        raise _taken_over(source)


def _taken_over(source: str) -> ClaimedError:
    return ClaimedError(
        f"{source}: this call was frozen, and another call has finished the copy meanwhile; call"
        " again"
    )


def _require_whole(
    mount: Mount, folder: str, objects: list[Object], source: str, target: str | None = None
) -> list[Object]:
    """Return the files of the copy; raise EfsStateError if one is gone, or not whole.

    A call that was frozen for longer than a lease, and had the claim before, may have removed it.
    With `target`, those that an earlier call moved there are left out.
    """
    present = []
    for item in objects:
        try:
            size = mount.stat(*_place(f"{folder}/{_FILES}", item)).st_size
        except FileNotFoundError:
            if target is not None and _is_moved(mount, folder, item, target):
                continue
            size = -1
        # MUT: a-copy-is-published-whole
        if size != item.size:
            raise EfsStateError(
                f"{source}: {item.name}: its copy was removed or changed before it was published;"
                " call again"
            )
        present.append(item)
    return present


def _published(objects: list[Object]) -> list[Object]:
    """Return the objects of a folder that its publication takes."""
    patterns = Patterns(None, DEFAULT_EXCLUDE)
    return [item for item in objects if item.name != layout.MANIFEST and patterns.takes(item.name)]


def _open_whole(path: str, objects: list[Object], source: str, mount: Mount, model: str) -> Source:
    """Return the copy as the source of a publication; raise ClaimedError if files are missing.

    If this call is frozen after its last look, another one may be removing them at this moment.
    """
    try:
        files = Source(path, mount, model, Patterns(None, DEFAULT_EXCLUDE))
    except FileNotFoundError:
        raise _taken_over(source) from None
    # MUT: a-copy-is-published-with-all-its-files
    if any(files.sizes.get(item.name) != item.size for item in objects):
        raise _taken_over(source)
    return files


def _is_moved(mount: Mount, folder: str, item: Object, target: str) -> bool:
    """Return True if an earlier call moved the file to `target`, and did not come to its end."""
    try:
        status = mount.stat(*_place(target, item))
        begun = mount.stat(folder, layout.LOCK).st_mtime
    except FileNotFoundError:
        return False
    # MUT: an-older-file-is-none-that-this-copy-moved
    is_of_this_copy = status.st_mtime >= begun
    return is_of_this_copy and status.st_size == item.size


def _place(folder: str, item: Object) -> tuple[str, str]:
    """Return the folder and the name of an object's file below `folder`."""
    above, _, last = f"{folder}/{item.name}".rpartition("/")
    return above, last


def _move(mount: Mount, folder: str, objects: list[Object], source: str, target: str) -> str:
    """Rename each file to its place: a reader sees the old file or the new one."""
    for item in _require_whole(mount, folder, objects, source, target):
        try:
            mount.rename(*_place(f"{folder}/{_FILES}", item), *_place(target, item), durable=True)
        except FileNotFoundError:
            raise _taken_over(source) from None
    return mount.path_of(target)
