"""Publish a repository of the Hugging Face hub from a function, in as many calls as it takes."""

from __future__ import annotations

from efsstate import deadline
from efsstate.errors import DeadlineExceeded, EfsStateError
from efsstate.modelstore import hub_source, publication
from efsstate.modelstore.patterns import DEFAULT_EXCLUDE, Patterns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from efsstate.modelstore.hub_source import HubSource
    from efsstate.mount.files import Mount

_SPARE = 2.0  # seconds kept for the end of an invocation


def publish(
    hub: str,
    model: str,
    *,
    version: str | None = None,
    activate: bool = True,
    secret: str | None = None,
    root: str | None = None,
    client: Any = None,
) -> dict[str, object]:
    """Publish the repository `hub` as a version of `model`; return `finished`, and how far it came.

    secret: the name of the hub's token in Secrets Manager, which `client` reads.

    If the deadline comes first, the next call continues. Raise `EfsStateError` if the hub or
    Secrets Manager refuses, or if the time suffices for no byte.
    """
    token = None if secret is None else _read_secret(secret, client)
    sources: list[HubSource] = []
    copied = 0

    def open_source(mount: Mount, folder: str) -> HubSource:
        patterns = Patterns(None, DEFAULT_EXCLUDE)
        sources.append(hub_source.open_source(hub, patterns, mount, folder, token=token))
        return sources[0]

    def note(done: int, total: int) -> None:
        nonlocal copied
        copied = max(0, done - total // 2)  # each byte counts twice: as digested, and as copied

    reserved = deadline.reserved.get()
    is_finished, version_id = True, None
    try:
        deadline.reserved.set(reserved + _SPARE)
        version_id = publication.publish(
            model,
            open_source,
            version=version,
            is_activated=activate,
            meta=None,
            progress=note,
            root=root,
        )
    except DeadlineExceeded:
        is_finished = False
        if not (sources and sources[0].received):
            raise EfsStateError(
                f"hf://{hub}: the time sufficed for no byte; give the function a longer timeout"
            ) from None
    finally:
        deadline.reserved.set(reserved)
    source = sources[0]
    answer: dict[str, object] = {"hub": hub, "model": model, "files": len(source.sizes)}
    answer |= {"finished": is_finished, "bytes": copied, "total": source.size}
    if is_finished:
        answer |= {"version": version_id, "revision": source.meta["revision"]}
    return answer


def _read_secret(name: str, client: Any) -> str:
    """Return the token that is the secret's text; raise EfsStateError if it cannot be read."""
    from botocore.exceptions import (  # type: ignore[import-untyped]
        BotoCoreError,
        ClientError,
    )

    try:
        response = (client or _default_client()).get_secret_value(SecretId=name)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code")
        raise EfsStateError(
            f"secret {name!r}: {code}; check its name, and give the function's role"
            " secretsmanager:GetSecretValue on it"
        ) from error
    except BotoCoreError as error:
        words = " ".join(str(error).split())
        raise EfsStateError(
            f"secret {name!r}: Secrets Manager can't be reached: {words}; a function in a VPC needs"
            " a NAT gateway, or an interface endpoint for secretsmanager"
        ) from error
    token = str(response.get("SecretString", "")).strip()
    if not token or token[0] == "{":
        raise EfsStateError(f"secret {name!r}: its text must be the hub's token, and nothing else")
    return token


def _default_client() -> Any:
    """Return boto3's client, with time-outs short enough to report an error."""
    import boto3  # type: ignore[import-untyped]
    import botocore.config  # type: ignore[import-untyped]

    config = botocore.config.Config(
        connect_timeout=5, read_timeout=10, retries={"mode": "standard", "max_attempts": 3}
    )
    return boto3.client("secretsmanager", config=config)
