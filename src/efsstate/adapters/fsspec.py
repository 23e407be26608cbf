"""fsspec's chained file system "efscache": remote objects, read once for the whole fleet.

    with fsspec.open("efscache::s3://bucket/table.parquet") as file: ...

An entry point makes that name known to fsspec.
"""

from __future__ import annotations

from errno import EIO, ESTALE

from fsspec.implementations.chained import ChainedFileSystem
from fsspec.registry import filesystem
from fsspec.spec import AbstractBufferedFile

from efsstate import parallel, units
from efsstate.cache.cache import Cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from efsstate.units import Size

_THREADS = 8  # of one read that spans several blocks: so many requests to the source at once
_STRIP = "_strip_protocol"  # a part of fsspec's interface, in spite of its name
_TAGS = ("ETag", "etag", "md5Hash", "content_md5")  # in `info`: stores' names for a content's tag
# Everything but reading is the source's: its answers are never stored.
_OF_THE_SOURCE = (
    "_parent", "checksum", "copy", "cp_file", "created", "du", "end_transaction", "exists",
    "expand_path", "find", "glob", "info", "invalidate_cache", "isdir", "isfile", "ls", "makedirs",
    "mkdir", "modified", "mv", "pipe", "pipe_file", "put", "put_file", "rm", "rm_file", "rmdir",
    "sign", "start_transaction", "touch", "ukey", "unstrip_protocol", "walk",
)  # fmt: skip


class EfsCacheFileSystem(ChainedFileSystem):
    """Read another file system's files through entries on the mount, block by block.

    Each open asks the source for the file's `info`, by which a changed file is seen. A block is
    fetched by one process of the fleet. Writes, listings and the rest go to the source.

    - `target_protocol` and `target_options`, or `fs`: the source. A chained URL gives them.
    - `block`: the bytes of an entry; all hosts need the same.
    - `name`, and other options: those of `Cache`.

    A source that fails raises its own errors. A mount that fails costs a fetch from the source.
    """

    protocol = "efscache"
    _strip_tokenize_options = ("fo",)

    def __init__(
        self,
        target_protocol: str | None = None,
        target_options: dict[str, Any] | None = None,
        fs: Any = None,
        *,
        block: Size = "8MiB",
        name: str = "fsspec",
        **options: Any,
    ) -> None:
        super().__init__()
        if (fs is None) == (target_protocol is None):
            raise ValueError("efscache: exactly one of fs and target_protocol is needed")
        self.block = units.size(block, "block")
        if not self.block:
            raise ValueError("efscache: block: it needs at least one byte")
        options.pop("fo", None)  # a chained URL's path, which `open` is given, too
        self._blocks: Cache[Any, bytes] = Cache(name, **options)
        self.fs = filesystem(target_protocol, **(target_options or {})) if fs is None else fs
        for method in _OF_THE_SOURCE:
            setattr(self, method, getattr(self.fs, method))
        strip, strip_of_source = getattr(type(self), _STRIP), getattr(self.fs, _STRIP)
        self._strip_protocol = lambda path: strip_of_source(strip(path))

    def __getattr__(self, name: str) -> Any:
        """Return an attribute that only the source has, such as the `bucket` methods of S3."""
        if name == "fs" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.fs, name)

    @property
    def transaction(self) -> Any:
        """The source's transaction: all writes are its own."""
        return self.fs.transaction

    def open(self, path: str, mode: str = "rb", *arguments: Any, **options: Any) -> Any:
        """Open `path`: to read it through the mount, or in any other mode at the source."""
        if set(mode) - set("rbt"):
            return self.fs.open(path, mode, *arguments, **options)
        return super().open(path, mode, *arguments, **options)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        options.pop("autocommit", None)
        identity, size = self.identify(path)
        if size is None:  # a stream: no block of it can be named
            return self.fs.open(path, mode, **options)
        return _File(self, path, identity, options | {"size": size})

    def identify(self, path: str) -> tuple[str, int | None]:
        """Return the ETag, or another mark, of the content at the source, and its size in bytes."""
        self.fs.invalidate_cache(path)  # else a listing of an hour ago might answer
        info = self.fs.info(path)
        if info["type"] == "directory":
            raise IsADirectoryError(path)
        tag = next((str(info[key]) for key in _TAGS if info.get(key)), "W/")
        if tag.startswith("W/"):  # none, or a weak one, which several contents may have
            tag = f"{self.fs.ukey(path)} {sorted(info.items(), key=str)}"
        return f"{self.fs.unstrip_protocol(path)} {info['size']} {tag}", info["size"]

    def read_blocks(self, path: str, identity: str, size: int, indices: range) -> list[bytes]:
        """Return these blocks; raise OSError if one is not stored, and the source has changed."""

        def fetch(index: int) -> bytes:
            start, end = index * self.block, min(size, (index + 1) * self.block)
            data = bytes(self.fs.cat_file(path, start=start, end=end))
            # MUT: a-block-is-of-the-object-that-was-opened
            if self.identify(path)[0] != identity:
                raise OSError(ESTALE, "changed while it was read; open it again", path)
            if len(data) != end - start:
                raise OSError(EIO, f"{len(data)} bytes came for {start} to {end}", path)
            return data

        keys = [(identity, self.block, index) for index in indices]
        blocks = self._blocks.get_many(keys) if len(keys) > 1 else {}

        def read(key: tuple[str, int, int]) -> None:
            blocks[key] = self._blocks.get_or_compute(key, lambda: fetch(key[2]))

        missing = [key for key in keys if key not in blocks]
        parallel.spread(missing, read, workers=min(_THREADS, len(missing)))
        return [blocks[key] for key in keys]


class _File(AbstractBufferedFile):
    """One content of a file, from open to close: a block of another content is an error."""

    def __init__(self, fs: Any, path: str, identity: str, options: dict[str, Any]) -> None:
        self._identity = identity
        self._last: tuple[int, bytes] = (-1, b"")  # small reads in a row need one block
        # Last: the cache types "all" and "first" read at once.
        super().__init__(fs, path, "rb", **{"cache_type": "none"} | options)

    def _fetch_range(self, start: int, end: int) -> bytes:
        size: int = self.fs.block
        indices = range(start // size, (min(end, self.size) - 1) // size + 1)
        if not indices:  # an empty file, which some cache types read all the same
            return b""
        # The cache type "background" reads in a thread of its own, which may replace it meanwhile.
        # MUT: a-block-in-hand-goes-with-its-number
        last_index, last_block = self._last
        blocks = [last_block] if indices[0] == last_index else []
        rest = indices[len(blocks) :]
        blocks += self.fs.read_blocks(self.path, self._identity, self.size, rest)
        self._last = indices[-1], blocks[-1]
        return b"".join(blocks)[start - indices[0] * size : end - indices[0] * size]
