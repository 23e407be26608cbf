"""An S3 bucket, read in ranges, with errors that name the remedy."""

from __future__ import annotations

from typing import Any, NamedTuple

from efsstate.errors import EfsStateError
from efsstate.modelstore.manifest import bad_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from efsstate.mount.drafts import PartialFile

CONNECTIONS = 8
MAX_OBJECTS = 100_000
CHUNK = 1 << 20  # bytes read at a time
_CHANGED = "it was changed while it was copied; call again"
_NOT_ALLOWED = (
    "not allowed; give the function's role s3:GetObject on the bucket's objects, and s3:ListBucket"
)
_REASONS = {
    "NoSuchBucket": "there is no such bucket",
    "412": _CHANGED,
    "PreconditionFailed": _CHANGED,
    "InvalidObjectState": "it is archived; restore it first (aws s3api restore-object)",
    "403": _NOT_ALLOWED,
    "AccessDenied": _NOT_ALLOWED,
}
_MISSING = ("404", "NoSuchKey", "NotFound")


class SourceMoved(EfsStateError):  # noqa: N818 - internal: the message is all that callers see
    """An object was changed or removed while it was copied: that copy is never completed."""


class Object(NamedTuple):
    """An object of S3: its key, the path it gets below the target, its size in bytes, its ETag."""

    key: str
    name: str
    size: int
    etag: str


def default_client() -> Any:
    """Return boto3's client for S3, with time-outs short enough to report an error."""
    import boto3  # type: ignore[import-untyped]
    import botocore.config  # type: ignore[import-untyped]

    config = botocore.config.Config(
        connect_timeout=5,
        read_timeout=30,
        max_pool_connections=CONNECTIONS,
        retries={"mode": "standard", "max_attempts": 5},
    )
    return boto3.client("s3", config=config)


class Bucket:
    """The bucket that `source` (an s3:// address) names, read by `client`."""

    def __init__(self, client: Any, bucket: str, source: str) -> None:
        self.client, self.bucket, self.source = client, bucket, source

    def call(self, operation: str, **arguments: Any) -> Any:
        """Call an operation of S3; raise KeyError for a key that does not exist."""
        from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

        try:
            return getattr(self.client, operation)(Bucket=self.bucket, **arguments)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code"))
            address = self._address(arguments.get("Key", arguments.get("Prefix", "")))
            if code in _MISSING:
                raise KeyError(address) from None
            reason = _REASONS.get(code, code)
            kind = SourceMoved if reason == _CHANGED else EfsStateError
            raise kind(f"{address}: {reason}") from error
        except BotoCoreError as error:
            words = " ".join(str(error).split())
            raise EfsStateError(
                f"{self.source}: S3 can't be reached: {words}; a function in a VPC needs an S3"
                " gateway endpoint in its subnets' route tables, and a bucket in the same region"
            ) from error

    def _address(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def list_objects(self, prefix: str, *, as_files: bool = True) -> list[Object]:
        """Return the object `prefix`, or those below it in S3's order.

        Folder markers are left out: empty objects with a key that ends in "/", and `prefix` itself
        if it is empty and has objects below it. With `as_files`, raise EfsStateError for keys that
        cannot be the names of files side by side.
        """
        if prefix and not prefix.endswith("/"):
            try:
                head = self.call("head_object", Key=prefix)
            except KeyError:
                prefix += "/"
            else:
                is_marker = not head["ContentLength"] and self._has_objects(f"{prefix}/")
                if not is_marker:
                    name = prefix.rpartition("/")[2]
                    source_object = Object(prefix, name, int(head["ContentLength"]), head["ETag"])
                    if as_files:
                        self._require_name(source_object)
                    return [source_object]
                prefix += "/"
        objects = list(self._below(prefix, as_files=as_files))
        if not objects:
            raise EfsStateError(f"{self.source}: there is no object of that key, nor any below it")
        if as_files:
            self._require_distinct(objects)
        return objects

    def _has_objects(self, prefix: str) -> bool:
        page = self.call("list_objects_v2", Prefix=prefix, MaxKeys=1)
        return bool(page.get("Contents"))

    def _below(self, prefix: str, *, as_files: bool) -> Iterator[Object]:
        count, token = 0, dict[str, str]()
        while True:
            page = self.call("list_objects_v2", Prefix=prefix, **token)
            for item in page.get("Contents", ()):
                if item["Key"].endswith("/") and not item["Size"]:
                    continue  # a folder's marker
                count += 1
                if count > MAX_OBJECTS:
                    raise EfsStateError(
                        f"{self.source}: more than {MAX_OBJECTS:,} objects; copy parts of it"
                    )
                key, name = item["Key"], item["Key"][len(prefix) :]
                source_object = Object(key, name, int(item["Size"]), item["ETag"])
                if as_files:
                    self._require_name(source_object)
                yield source_object
            if not page.get("NextContinuationToken"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _require_name(self, item: Object) -> None:
        """Raise EfsStateError if the object's name cannot be a file's."""
        if why := bad_name(item.name):
            raise EfsStateError(
                f"{self._address(item.key)}: can't be a file: {why}; rename the object, or copy"
                " another prefix"
            )

    def _require_distinct(self, objects: list[Object]) -> None:
        """Raise EfsStateError if a key would be a file and a folder at once."""
        keys = {item.name: item.key for item in objects}
        for item in objects:
            parts = item.name.split("/")
            for count in range(1, len(parts)):
                if (above := keys.get("/".join(parts[:count]))) is not None:
                    raise EfsStateError(
                        f"{self._address(above)}: can't be a file, because"
                        f" {self._address(item.key)} needs a folder of that name; rename or remove"
                        " one of the two"
                    )

    def read(self, item: Object) -> bytes:
        """Return the bytes of a small object."""
        data = bytearray(item.size)
        view = memoryview(data)

        def put(chunk: memoryview, at: int) -> None:
            view[at : at + len(chunk)] = chunk

        if item.size:
            self._receive(item, 0, item.size, put)
        return bytes(data)

    def fetch(self, item: Object, start: int, end: int, target: PartialFile) -> None:
        """Write the object's bytes from `start` to `end` to the same place of `target`."""
        self._receive(item, start, end, target.put)

    def _receive(
        self, item: Object, start: int, end: int, put: Callable[[memoryview, int], None]
    ) -> None:
        """Call `put` with the object's bytes from `start` to `end`, and where each chunk begins."""
        from botocore.exceptions import BotoCoreError

        address = self._address(item.key)
        try:
            response = self.call(
                "get_object", Key=item.key, Range=f"bytes={start}-{end - 1}", IfMatch=item.etag
            )
        except KeyError:
            raise SourceMoved(f"{address}: it was removed while it was copied") from None
        at = start
        try:
            with response["Body"] as body:
                while at < end and (data := body.read(min(CHUNK, end - at))):
                    put(memoryview(data), at)
                    at += len(data)
        except (BotoCoreError, OSError) as error:
            if isinstance(error, OSError) and error.filename:
                raise  # of the mount
            raise EfsStateError(
                f"{address}: the connection broke: {error}; call again, and it continues"
            ) from error
        if at != end:
            raise EfsStateError(f"{address}: {end - at} bytes are missing; call again")
