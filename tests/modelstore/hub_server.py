"""A hub on loopback, as huggingface_hub's client expects it: an API, and a store for large files.

It answers with the headers of the real one: `X-Repo-Commit`, `ETag`, `X-Linked-Etag`,
`X-Linked-Size`, a redirect to another origin for what is stored with LFS, and ranges there. The
store refuses a request with the hub's token, as S3 does beside a signed address.
"""

from __future__ import annotations

import hashlib
import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from huggingface_hub import constants, file_download

from efsstate.modelstore import hub as hubs

TOKEN = "hf_secret"
_JSON = {"Content-Type": "application/json"}


class Repository:
    """Files at one commit; those with a name that ends in `large` are stored with LFS."""

    def __init__(self, files, large=(".safetensors", ".bin"), gated=False):
        self.files, self.large, self.gated = dict(files), large, gated
        text = repr(
            sorted((name, hashlib.sha256(data).hexdigest()) for name, data in files.items())
        )
        self.commit = hashlib.sha1(text.encode()).hexdigest()
        self.refs = {"main": self.commit, self.commit: self.commit, "refs/pr/1": self.commit}

    def is_large(self, name):
        return name.endswith(self.large)

    def digest(self, name):
        data = self.files[name]
        if self.is_large(name):
            return hashlib.sha256(data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def siblings(self):
        for name, data in self.files.items():
            item = {"rfilename": name, "size": len(data), "blobId": self.digest(name)}
            if self.is_large(name):
                item["blobId"] = 40 * "0"
                item["lfs"] = {"sha256": self.digest(name), "size": len(data), "pointerSize": 134}
            yield item

    def tree(self):
        for item in self.siblings():
            entry = {"type": "file", "path": item["rfilename"], "size": item["size"]}
            entry["oid"] = item["blobId"]
            if lfs := item.get("lfs"):
                entry["lfs"] = {"oid": lfs["sha256"], "size": lfs["size"], "pointerSize": 134}
            yield entry


class Hub:
    """The server: `repositories` by name; `served` are the ranges that the store has sent.

    connections: how many the store has accepted.
    cut_after: the store breaks each connection once it has sent so many bytes in all.
    expired: the first so many of the signed addresses are refused.
    damaged: the store sends this file with its last byte flipped.
    has_ranges: False, and each answer is the whole file.
    """

    def __init__(self):
        self.repositories = {}
        self.served, self.asked, self.sent, self.signed = [], [], 0, 0
        self.cut_after, self.expired, self.damaged, self.has_ranges = None, 0, None, True
        self.lock, self.connections = threading.Lock(), 0
        self.api, self.store = (_start(kind, self) for kind in (_Api, _Store))
        self.url = f"http://127.0.0.1:{self.api.server_address[1]}"
        # Another origin than the API's, as the real store is.
        self.store_url = f"http://localhost:{self.store.server_address[1]}"

    def close(self):
        for server in (self.api, self.store):
            server.shutdown()
            server.server_close()


def point_client_at(server, monkeypatch, home):
    """Set what the client has read from HF_ENDPOINT and HF_HOME when it was imported."""
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    # Releases before 1.0 have copies of it, made when they were imported.
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(hubs, "_WAIT", 0.01)


def _start(handler, hub):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads, server.hub = True, hub
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    @property
    def hub(self):
        return self.server.hub

    def answer(self, status, headers=(), data=b"", length=None):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status, code):
        error = {"X-Error-Code": code, "X-Error-Message": code} if code else {}
        self.answer(status, error, json.dumps({"error": code}).encode())

    def do_HEAD(self):
        self.do_GET()


class _Api(_Handler):
    def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path.strip("/")
        with self.hub.lock:
            self.hub.asked.append((self.command, path))
        parts = path.removeprefix("api/models/").split("/", 4)
        repository = self.hub.repositories.get("/".join(parts[:2]))
        if repository is None:
            # So the real one hides private repositories.
            return self.refuse(401, "RepoNotFound")
        commit = repository.refs.get(urllib.parse.unquote(parts[3]))
        if commit is None:
            return self.refuse(404, "RevisionNotFound")
        if path.startswith("api/"):
            if parts[2] == "tree":
                entries = list(repository.tree())
                return self.answer(200, _JSON, json.dumps(entries).encode())
            name = "/".join(parts[:2])
            about = {"id": name, "modelId": name, "sha": commit, "private": False, "tags": []}
            about["siblings"] = list(repository.siblings())
            about["gated"] = "manual" if repository.gated else False
            return self.answer(200, _JSON, json.dumps(about).encode())
        is_known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository.gated and not is_known:
            return self.refuse(403 if self.headers.get("Authorization") else 401, "GatedRepo")
        name = urllib.parse.unquote(parts[4])
        if name not in repository.files:
            return self.refuse(404, "EntryNotFound")
        data, etag = repository.files[name], f'"{repository.digest(name)}"'
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if not repository.is_large(name):
            data = _damage(data) if name == self.hub.damaged else data
            status, more, data = _ranged(data, self.headers.get("Range"))
            return self.answer(status, {**headers, **more, "ETag": etag}, data)
        headers["X-Linked-Etag"], headers["X-Linked-Size"] = etag, str(len(data))
        with self.hub.lock:
            self.hub.signed += 1
            query = urllib.parse.urlencode({"name": name, "Signature": self.hub.signed})
        owner = "/".join(parts[:2])
        headers["Location"] = f"{self.hub.store_url}/{owner}?{query}"
        return self.answer(302, headers, b"Found. Redirecting")


class _Store(_Handler):
    def setup(self):
        with self.hub.lock:
            self.hub.connections += 1
        super().setup()

    def do_GET(self):
        hub, address = self.hub, urllib.parse.urlsplit(self.path)
        if "Authorization" in self.headers:
            return self.refuse(400, "OnlyOneAuthMechanism")
        query = dict(urllib.parse.parse_qsl(address.query))
        name = query["name"]
        if int(query["Signature"]) <= hub.expired:
            return self.refuse(403, "")
        data = hub.repositories[address.path.strip("/")].files[name]
        data = _damage(data) if name == hub.damaged else data
        wanted = self.headers.get("Range") if hub.has_ranges else None
        status, headers, data = _ranged(data, wanted)
        with hub.lock:
            hub.served.append((name, wanted))
            rest = None if hub.cut_after is None else max(0, hub.cut_after - hub.sent)
            sent = len(data) if rest is None else min(rest, len(data))
            hub.sent += sent
        self.answer(status, headers, data[:sent], len(data))
        if sent < len(data):
            self.close_connection = True
        return None


def _damage(data):
    return data[:-1] + bytes([data[-1] ^ 1])


def _ranged(data, wanted):
    if wanted is None:
        return 200, {}, data
    start, end = wanted.removeprefix("bytes=").split("-")
    stop = min(int(end) + 1 if end else len(data), len(data))
    about = f"bytes {start}-{stop - 1}/{len(data)}"
    return 206, {"Content-Range": about}, data[int(start) : stop]
