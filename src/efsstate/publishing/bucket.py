"""Reads objects of an S3 bucket in ranges, with errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from efsstate.errors import EfsStateError
from efsstate.modelstore.manifest import bad_name

CONNECTIONS = 8
MOST = 100_000  # objects
CHUNK = 1 << 20  # bytes read at a time


class Object(NamedTuple):
    """An object of S3: its key, the path it gets below the target, its size in bytes, and its ETag."""

    key: str
    name: str
    size: int
    etag: str


def default_client() -> Any:
    """boto3's client for S3, which gives up in time to say something."""
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
    """What is read from S3, with errors that say what to do."""

    def __init__(self, client: Any, bucket: str, source: str) -> None:
        self.client, self.bucket, self.source = client, bucket, source

    def ask(self, operation: str, **arguments: Any) -> Any:
        """A call; `KeyError` for what is not there."""
        from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

        try:
            return getattr(self.client, operation)(Bucket=self.bucket, **arguments)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code"))
            where = f"s3://{self.bucket}/{arguments.get('Key', arguments.get('Prefix', ''))}"
            if code in ("404", "NoSuchKey", "NotFound"):
                raise KeyError(where) from None
            why = {
                "NoSuchBucket": "there is no such bucket",
                "412": "it was changed while it was copied: call again",
                "PreconditionFailed": "it was changed while it was copied: call again",
                "InvalidObjectState": "it is in an archive: restore it first (aws s3api restore-object)",
                "403": "not allowed: give the function's role s3:GetObject on the bucket's objects, and s3:ListBucket",
                "AccessDenied": "not allowed: give the function's role s3:GetObject on the bucket's objects, and s3:ListBucket",
            }.get(code, code)
            raise EfsStateError(f"{where}: {why}") from error
        except BotoCoreError as error:
            words = " ".join(str(error).split())
            raise EfsStateError(
                f"{self.source}: S3 can't be reached: {words}: a function in a VPC needs an S3 gateway endpoint in its subnets'"
                " route tables, and a bucket in the same region"
            ) from error

    def objects(self, prefix: str) -> Iterator[Object]:
        """The object `prefix`, else those below it, in S3's order; folder markers left out."""
        if prefix and not prefix.endswith("/"):
            try:
                found = self.ask("head_object", Key=prefix)
            except KeyError:
                prefix += "/"
            else:
                yield self._object(
                    prefix, prefix.rpartition("/")[2], found["ContentLength"], found["ETag"]
                )
                return
        count, more = 0, dict[str, str]()
        while True:
            page = self.ask("list_objects_v2", Prefix=prefix, **more)
            for one in page.get("Contents", ()):
                if one["Key"].endswith("/"):
                    continue
                count += 1
                if count > MOST:
                    raise EfsStateError(f"{self.source}: over {MOST:,} objects: copy parts of it")
                yield self._object(one["Key"], one["Key"][len(prefix) :], one["Size"], one["ETag"])
            if not page.get("NextContinuationToken"):
                break
            more = {"ContinuationToken": page["NextContinuationToken"]}
        if not count:
            raise EfsStateError(f"{self.source}: there is no object of that key, nor any below it")

    def _object(self, key: str, name: str, size: int, etag: str) -> Object:
        why = bad_name(name)
        if why:
            raise EfsStateError(f"s3://{self.bucket}/{key}: can't be a file: {why}")
        return Object(key, name, int(size), etag)

    def fetch(self, one: Object, start: int, end: int, filling: Any) -> None:
        """The bytes from `start` to `end`, into the file."""
        from botocore.exceptions import BotoCoreError

        try:
            body = self.ask(
                "get_object", Key=one.key, Range=f"bytes={start}-{end - 1}", IfMatch=one.etag
            )["Body"]
        except KeyError as error:
            raise EfsStateError(f"{error.args[0]}: it was removed while it was copied") from None
        try:
            with body:
                while start < end and (data := body.read(min(CHUNK, end - start))):
                    filling.put(memoryview(data), start)
                    start += len(data)
        except (BotoCoreError, OSError) as error:
            if isinstance(error, OSError) and error.filename:
                raise  # of the mount
            raise EfsStateError(
                f"s3://{self.bucket}/{one.key}: the connection broke: {error}: call again, and it goes on"
            ) from error
        if start != end:
            raise EfsStateError(
                f"s3://{self.bucket}/{one.key}: {end - start} bytes are missing: call again"
            )
