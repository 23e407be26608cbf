"""The Lambda function that brings files from S3 to the mount: set its handler to `efsstate.publisher.handler`."""

from __future__ import annotations

from efsstate import deadline
from efsstate.deadline import Invocation
from efsstate.errors import ClaimedError, DeadlineExceeded, EfsStateError
from efsstate.eviction import removal
from efsstate.format import grammar, layout
from efsstate.modelstore import versions
from efsstate.modelstore.manifest import bad_name
from efsstate.mount import lock
from efsstate.mount import root as roots
from efsstate.mount.drafts import PartialFile
from efsstate.mount.files import Mount
from efsstate.publishing.bucket import CONNECTIONS, Bucket, default_client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from efsstate.publishing.bucket import Object


_OPTIONS = ("source", "model", "to", "version", "activate", "root")
_INCOMING, _FILES, _PROGRESS = ".incoming-", "files", "PROGRESS"
_PART, _PARTS = 8 << 20, CONNECTIONS  # bytes of a request, requests at a time
_ABANDONED = 7 * 86400.0
_WAIT = 10.0  # seconds for another call with the same event
_SPARE = 5.0  # seconds kept for what ends an invocation
_USAGE = (
    'the event is {"source": "s3://bucket/key or prefix/", "model": name} to publish a version, or "to": a folder below'
    " shared-data/ instead of the model"
)


def handler(event: dict[str, Any] | None, context: object = None) -> dict[str, object]:
    """Copy an object or a prefix of S3 to the mount; the next call with the same event goes on where this one had to stop.

    `event`: `source`, "s3://bucket/key" or "s3://bucket/prefix/"; and `model` (with `version` and `activate` as in
    `efsstate.publish`), or `to`, a folder below shared-data/, "" for that itself. Returns, and logs as a line of JSON,
    `finished` (false: call again), `bytes` and `total`, `files`, and at the end the `version` or the `path`. Raises
    `ValueError` for an event that makes no sense, `EfsStateError` with what to do where S3 refuses, `ClaimedError` while
    another call copies the same.
    """
    asked = dict(event or {})
    unknown = sorted(set(asked) - set(_OPTIONS))
    if unknown:
        raise ValueError(f"event: {', '.join(map(repr, unknown))}: not known: {_USAGE}")
    with Invocation(context):
        told = run(**asked)
    import json

    print(json.dumps({"event": "publish", **told}))  # noqa: T201 - a function's log is its standard output
    return told


def run(
    source: str = "",
    model: str | None = None,
    to: str | None = None,
    version: str | None = None,
    *,
    activate: bool = True,
    root: str | None = None,
    client: Any = None,
) -> dict[str, object]:
    """As `handler`; `client` is boto3's for S3, where it is not the default one."""
    if (model is None) == (to is None):
        raise ValueError(f"event: {_USAGE}")
    if model is not None:
        layout.model_folder(model)  # a name that can't be one is told before anything is copied
    elif to and (why := bad_name(to)):
        raise ValueError(f"to: {to!r} can't be a folder below shared-data/: {why}")
    bucket, prefix = _parse(source)
    mount = roots.resolve(root, durable=True)
    store = Bucket(client or default_client(), bucket, source)
    objects = list(store.objects(prefix))
    incoming = f"{layout.SHARED}/{_INCOMING}{_digest(bucket, objects, model, to)}"
    _forget_abandoned(mount, incoming)
    held = lock.acquire(mount, incoming, layout.LOCK, until=deadline.until(_WAIT, margin=_SPARE))
    if held is None:
        raise ClaimedError(f"{source}: another call copies it at this moment: call again later")
    try:
        copy = _Copy(mount, incoming, objects, store)
        told: dict[str, object] = {"source": source, "files": len(objects), "total": copy.total}
        if not copy.run():
            return {**told, "finished": False, "bytes": copy.done}
        if model is not None:
            single = len(objects) == 1 and objects[0].key == prefix
            path = mount.path_of(f"{incoming}/{_FILES}", objects[0].name if single else "")
            try:
                told["version"] = versions.publish(
                    model, path, version=version, activate=activate, root=root
                )
            except DeadlineExceeded:
                return {**told, "finished": False, "bytes": copy.done}
        else:
            told["path"] = _move(mount, incoming, objects, to or "")
        removal.remove_tree(mount, incoming, grammar.anything)
    finally:
        held.release()
    return {**told, "finished": True, "bytes": copy.total}


def _parse(source: str) -> tuple[str, str]:
    bucket, _, key = (
        source.removeprefix("s3://").partition("/") if isinstance(source, str) else ("", "", "")
    )
    if not bucket or not str(source).startswith("s3://"):
        raise ValueError(f"source: {source!r} is not s3://bucket/key: {_USAGE}")
    return bucket, key


def _digest(bucket: str, objects: list[Object], model: str | None, to: str | None) -> str:
    """The name of this copy: another content, or another target, is another copy."""
    from hashlib import blake2b

    text = repr((bucket, [tuple(one) for one in objects], model, to))
    return blake2b(text.encode(), digest_size=12).hexdigest()


def _forget_abandoned(mount: Mount, mine: str) -> None:
    """Copies that nobody went on with for a week, because their source changed or was given up."""
    import time

    try:
        names = mount.names(layout.SHARED)
    except FileNotFoundError:
        return
    for name in names:
        folder = f"{layout.SHARED}/{name}"
        if name.startswith(_INCOMING) and folder != mine:
            try:
                if mount.stat(folder, _PROGRESS).st_mtime < time.time() - _ABANDONED:
                    removal.remove_tree(mount, folder, grammar.anything)
            except OSError:
                continue


class _Copy:
    """A copy under way: objects in order, each in windows of parallel ranges; after each window it is noted how far it came."""

    def __init__(self, mount: Mount, folder: str, objects: list[Object], store: Bucket) -> None:
        self.mount, self.folder, self.objects, self.store = mount, folder, objects, store
        self.total = sum(one.size for one in objects)
        self.index, self.offset = self._noted()
        self.slowest = 0.0

    @property
    def done(self) -> int:
        """Bytes that are on the mount for good."""
        return sum(one.size for one in self.objects[: self.index]) + self.offset

    def _noted(self) -> tuple[int, int]:
        import json

        try:
            data, _ = self.mount.read_stat(self.folder, _PROGRESS, 100)
            index, offset = json.loads(data)
            return int(index), int(offset)
        except (OSError, ValueError, TypeError):
            return 0, 0

    def _note(self) -> None:
        text = f"[{self.index}, {self.offset}]".encode()
        self.mount.replace(self.folder, _PROGRESS, lambda _: (text,), durable=True)

    def run(self) -> bool:
        """Go on; False where the deadline came first."""
        import time
        from concurrent.futures import ThreadPoolExecutor

        started, since = self.done, time.monotonic()
        with ThreadPoolExecutor(_PARTS, thread_name_prefix="efsstate-s3") as pool:
            while self.index < len(self.objects):
                left = deadline.remaining()
                if left is not None and left < _SPARE + 2 * self.slowest:
                    if self.done == started and self.slowest == 0.0:
                        raise EfsStateError(
                            f"{self.store.source}: {left:.0f} s are too few to copy anything: give the function a longer timeout"
                        )
                    self._note()
                    return False
                start = time.monotonic()
                self._window(pool)
                now = time.monotonic()
                self.slowest = max(self.slowest, now - start)
                if self.offset or now - since > 1:  # small files: not a note each
                    self._note()
                    since = now
        self._note()
        return True

    def _window(self, pool: Any) -> None:
        from concurrent.futures import wait

        one = self.objects[self.index]
        above, _, last = one.name.rpartition("/")
        folder = f"{self.folder}/{_FILES}" + (f"/{above}" if above else "")
        end = min(one.size, self.offset + _PARTS * _PART)
        filling = PartialFile(self.mount, folder, last)
        try:
            jobs = [
                pool.submit(self.store.fetch, one, start, min(end, start + _PART), filling)
                for start in range(self.offset, end, _PART)
            ]
            for job in jobs:
                job.result()
        except BaseException:
            for job in jobs:
                job.cancel()
            wait(jobs)  # one that still runs would write to the number of a closed descriptor
            filling.close()
            raise
        filling.finish(
            end
        )  # on disk, and cut to what is whole: a killed call may have left more behind it
        if end == one.size:
            self.index, self.offset = self.index + 1, 0
        else:
            self.offset = end


def _move(mount: Mount, incoming: str, objects: list[Object], to: str) -> str:
    """Each file to its place, in one step each: a reader sees the old file or the new one."""
    target = f"{layout.SHARED}/{to}" if to else layout.SHARED
    for one in objects:
        above, _, last = one.name.rpartition("/")
        tail = f"/{above}" if above else ""
        try:
            mount.rename(f"{incoming}/{_FILES}{tail}", last, f"{target}{tail}", last, durable=True)
        except FileNotFoundError:
            if mount.stat(f"{target}{tail}", last).st_size != one.size:
                raise
            # moved by the call before, which did not come to its end
    return mount.path_of(target)
