"""A repository of the Hugging Face hub at one commit: its files, read in ranges.

The client is `huggingface_hub` (the extra `hub`): its endpoint, token, proxies and retries count.
Whatever it raises becomes an `EfsStateError` here.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

from efsstate.errors import EfsStateError

_TIMEOUT = 30.0  # seconds of silence on a connection
_RETRIES, _WAIT = 3, 0.25  # of one range; seconds before the first, doubled each time
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
        """Fill `view` with the file's bytes from `offset` on, by one request."""
        path = f"{self.path}/{file.name}"
        if not len(view):
            return
        try:
            data = self._read(file, offset, offset + len(view))
        except Exception as error:
            self._raise(path, error)
        if len(data) == file.size:  # the server does not know ranges
            data = data[offset : offset + len(view)]
        if len(data) != len(view):
            raise EfsStateError(
                f"{path}: the hub sent {len(data)} bytes in place of {len(view)}; publish it again,"
                " and it continues"
            )
        view[:] = data

    def _read(self, file: HubFile, start: int, end: int) -> bytes:
        from huggingface_hub.errors import HfHubHTTPError

        url = self._hub.hf_hub_url(self.name, file.name, revision=self.commit)
        wanted = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        refused = None
        while True:
            location = self._locate(url, refused) if file.sha256 else url
            # MUT: the-token-is-for-the-hub-alone
            is_hubs = _origin(location) == _origin(url)
            headers = self._hub.utils.build_hf_headers(token=self._token) if is_hubs else {}
            response = self._hub.utils.http_backoff(
                "GET",
                location,
                headers={**headers, **wanted},
                timeout=_TIMEOUT,
                max_retries=_RETRIES,
                base_wait_time=_WAIT,
            )
            try:
                self._hub.utils.hf_raise_for_status(response)
            except HfHubHTTPError:
                if is_hubs or refused is not None:
                    raise
                refused = location  # it is signed, and its time may be over
            else:
                return bytes(response.content)

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
