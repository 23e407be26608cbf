"""Which files of a folder are published: patterns as in `fnmatch`, for paths below the folder."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Leftovers of tools: with them, two downloads of one model would be two versions.
DEFAULT_EXCLUDE = (
    ".git",
    ".cache/huggingface",
    ".locks",
    "*.lock",
    "__pycache__",
    ".ipynb_checkpoints",
    ".DS_Store",
)


class Patterns:
    """`include` (None: all files) without `exclude`.

    A pattern matches a path from its start, or from any slash on: "*.bin" matches "a/w.bin", and
    ".git" everything below "a/.git", too.
    """

    def __init__(self, include: Iterable[str] | None, exclude: Iterable[str] | None) -> None:
        self._include = None if include is None else _require_strings("include", include)
        self._exclude = _require_strings("exclude", exclude or ())

    def excludes(self, path: str) -> bool:
        """Return True if the file or folder `path` is left out with everything below it."""
        return _matches(path, self._exclude)

    def includes(self, path: str) -> bool:
        """Return True if the file `path` is published, as far as `include` tells."""
        if self._include is None:
            return True
        parts = path.split("/")
        above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        return any(_matches(prefix, self._include) for prefix in above)

    def takes(self, path: str) -> bool:
        """Return True if the file `path` is published, judged without its folders."""
        parts = path.split("/")
        above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        return not any(map(self.excludes, above)) and self.includes(path)


def _require_strings(option: str, patterns: Iterable[str]) -> tuple[str, ...]:
    if isinstance(patterns, str):
        raise TypeError(f"{option}={patterns!r}: a list of patterns is needed, not a string")
    collected = tuple(patterns)
    for pattern in collected:
        if not isinstance(pattern, str):
            raise TypeError(f"{option}: {pattern!r} is not a pattern; patterns are strings")
    return collected


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    from fnmatch import fnmatchcase

    return any(fnmatchcase(tail, pattern) for tail in _tails(path) for pattern in patterns)


def _tails(path: str) -> Iterator[str]:
    """Yield the path, and the rest after each of its slashes."""
    while path:
        yield path
        path = path.partition("/")[2]
