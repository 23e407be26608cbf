"""A repository of the Hugging Face hub at one commit: its files, read in ranges.

The client is `huggingface_hub` (the extra `hub`): its endpoint, token, proxies and retries count.
Whatever it raises becomes an `EfsStateError` here.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

from efsstate.errors import EfsStateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_TIMEOUT = 30.0  # seconds of silence on a connection
_RETRIES, _WAIT = 3, 0.25  # of one range; seconds before the first, doubled each time
CHUNK = 256 << 10  # bytes that are received at once
_PARTIAL = 206  # the status of an answer with a range
_ACCESS = (
    "give a token that may read it (HF_TOKEN, or `hf auth login`; for the publisher,"
    ' {"secret": its name in Secrets Manager})'
)
_REASONS = {
    "GatedRepoError": f"it is gated; accept its terms on the hub, and {_ACCESS}",
    "RepositoryNotFoundError": f"no such repository, or a private one; {_ACCESS}",
    "RevisionNotFoundError": "no such revision; name a branch, a tag or a commit after the @",
    "RemoteEntryNotFoundError": "this file is missing on the hub",
}
_OFFLINE = "HF_HUB_OFFLINE is set; publish the folder of a snapshot that was downloaded before"
_UNREACHABLE = (
    "the hub can't be reached; publish it again, and it continues; a function in a VPC needs a NAT"
    " gateway"
)


class HubFile(NamedTuple):
    """A file of a repository: `sha256` if it is stored with LFS or Xet, else git's `sha1`."""

    name: str
    size: int
    sha256: str
    sha1: str


class Repository:
    """The repository that `address` names, "org/name" or "org/name@revision", at its commit."""

    def __init__(self, address: str, token: str | None = None) -> None:
        self.name, _, revision = address.partition("@")
        if not self.name or address.endswith("@"):
            raise ValueError(f"hub={address!r}: pass 'org/name' or 'org/name@revision'")
        self.path, self._token = f"hf://{address}", token
        try:
            import huggingface_hub.constants
            import huggingface_hub.utils
        except ImportError:
            raise EfsStateError(
                f"{self.path}: huggingface_hub is not installed; install efsstate[hub]"
            ) from None
        self._hub: Any = huggingface_hub
        self._lock = threading.Lock()
        self._locations: dict[str, str] = {}
        if huggingface_hub.constants.HF_HUB_OFFLINE:
            raise EfsStateError(f"{self.path}: {_OFFLINE}")
        try:
            api = huggingface_hub.HfApi(token=token)
            info = api.model_info(self.name, revision=revision or "main", files_metadata=True)
        except Exception as error:
            self._raise(self.path, error)
        self.commit = str(info.sha)
        self.path = f"hf://{self.name}@{self.commit}"
        self.files = [_judge(self.path, sibling) for sibling in info.siblings or ()]

    def read_into(self, file: HubFile, view: memoryview, offset: int) -> None:
        """Fill `view` with the file's bytes from `offset` on, by one request if none breaks off."""
        path, done, broken = f"{self.path}/{file.name}", 0, None
        for attempt in range(_RETRIES + 1):
            if done == len(view):
                return
            if attempt:
                time.sleep(_WAIT * 2 ** (attempt - 1))
            try:
                count, broken = self._receive(file, view[done:], offset + done)
            except Exception as error:
                self._raise(path, error)
            done += count
        if done == len(view):
            return
        if broken is not None:
            self._raise(path, broken)
        raise EfsStateError(
            f"{path}: the hub sent {done} bytes in place of {len(view)}; publish it again, and it"
            " continues"
        )

    def _receive(
        self, file: HubFile, view: memoryview, offset: int
    ) -> tuple[int, Exception | None]:
        """Fill `view` from one answer; return how many bytes came, and the error that broke it."""
        from huggingface_hub.errors import HfHubHTTPError

        url = self._hub.hf_hub_url(self.name, file.name, revision=self.commit)
        wanted = {
            "Range": f"bytes={offset}-{offset + len(view) - 1}",
            "Accept-Encoding": "identity",
        }
        refused = None
        while True:
            location = self._locate(url, refused) if file.sha256 else url
            # MUT: the-token-is-for-the-hub-alone
            is_hubs = _origin(location) == _origin(url)
            headers = self._hub.utils.build_hf_headers(token=self._token) if is_hubs else {}
            with self._stream(location, {**headers, **wanted}) as (response, chunks):
                try:
                    self._hub.utils.hf_raise_for_status(response)
                except HfHubHTTPError:
                    if is_hubs or refused is not None:
                        raise
                    refused = location  # it is signed, and its time may be over
                    continue
                is_range = response.status_code == _PARTIAL
                return _fill(view, chunks, skip=0 if is_range else offset)

    @contextmanager
    def _stream(self, location: str, headers: dict[str, str]) -> Iterator[tuple[Any, Any]]:
        """Yield an answer, and its bytes as they arrive: `content` would copy them twice more."""
        utils = self._hub.utils
        options = {"timeout": _TIMEOUT, "max_retries": _RETRIES, "base_wait_time": _WAIT}
        if hasattr(utils, "http_stream_backoff"):
            with utils.http_stream_backoff("GET", location, headers=headers, **options) as answer:
                yield answer, answer.iter_raw()
            return
        # Releases before 1.0 use requests.
        with utils.http_backoff("GET", location, headers=headers, stream=True, **options) as answer:
            yield answer, answer.iter_content(CHUNK)

    def _locate(self, url: str, refused: str | None) -> str:
        """Return where the bytes of a large file are: mostly a signed address of another server."""
        with self._lock:
            location = self._locations.get(url)
            if location is None or location == refused:
                metadata = self._hub.get_hf_file_metadata(url, token=self._token, timeout=_TIMEOUT)
                location = self._locations[url] = str(metadata.location)
            return location

    def _raise(self, path: str, error: Exception) -> NoReturn:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        if "HFValidationError" in kinds:
            raise ValueError(f"hub={self.name!r}: {error}") from None
        for kind in kinds:
            if reason := _REASONS.get(kind):
                raise EfsStateError(f"{path}: {reason}") from error
        response = getattr(error, "response", None)
        if status := getattr(response, "status_code", None):
            raise EfsStateError(
                f"{path}: the hub answered {status}; publish it again, and it continues"
            ) from error
        words = " ".join(str(error).split()) or type(error).__name__
        raise EfsStateError(f"{path}: {words}: {_UNREACHABLE}") from error


def _fill(view: memoryview, chunks: Iterable[bytes], *, skip: int) -> tuple[int, Exception | None]:
    """Fill `view` with the chunks, without their first `skip` bytes.

    Return how many bytes came, and the error that broke the connection, if it broke.
    """
    done, size = 0, len(view)
    try:
        for chunk in chunks:
            data = memoryview(chunk)[skip:]
            skip = max(0, skip - len(chunk))
            wanted = data[: size - done]
            view[done : done + len(wanted)] = wanted
            done += len(wanted)
            # After the last byte of a range the end is still read, so that the connection is kept.
            if len(wanted) < len(data):
                break
    except Exception as error:
        return done, error
    return done, None


def _origin(url: str) -> tuple[str, str]:
    return urlsplit(url)[:2]


def _judge(path: str, sibling: Any) -> HubFile:
    """Return the file that the hub lists; raise EfsStateError if its digest is unknown."""
    lfs = sibling.lfs
    sha256, sha1 = str(lfs.sha256) if lfs else "", str(sibling.blob_id or "")
    size = sibling.size if sibling.size is not None else lfs.size if lfs else None
    if size is None or not (sha256 or sha1):
        raise EfsStateError(
            f"{path}/{sibling.rfilename}: the hub names no size or digest; download it, and"
            " publish the folder"
        )
    return HubFile(str(sibling.rfilename), int(size), sha256, sha1)
