"""Describe one part of a dataset, and the path at which a library writes one."""

from __future__ import annotations

from efsstate.format import dataset_layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Part:
    """One immutable file of a dataset.

    `name` is its file name and `path` its full path. `key` is the digest of the key it was added
    under, `size` its length in bytes, `digest` its checksum in hex, and `suffix` the end of its
    name. `added` is False if the key was there before, or was removed; then `removed` is True, and
    there is no such file.
    """

    __slots__ = ("added", "digest", "key", "name", "path", "removed", "size", "suffix")

    def __init__(
        self, name: str, folder: str, *, added: bool = True, removed: bool = False
    ) -> None:
        fields = dataset_layout.parse_part(name)
        if fields is None:
            raise ValueError(f"{name!r}: this is not the name of a part")
        self.name, self.path = name, f"{folder}/{name}"
        self.key, self.size, self.digest, self.suffix = fields
        self.added, self.removed = added, removed

    def result_key(self, step: str = "") -> str:
        """Return the key for a result of `step` on this part, in another dataset."""
        return f"{step}\0{self.name}"

    def __repr__(self) -> str:
        return f"<Part {self.name} of {self.size} bytes>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Part) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)

    def __reduce__(self) -> tuple[Any, ...]:
        folder = self.path[: -len(self.name) - 1]
        return _rebuild, (self.name, folder, (self.added, self.removed))


def _rebuild(name: str, folder: str, outcome: tuple[bool, bool]) -> Part:
    return Part(name, folder, added=outcome[0], removed=outcome[1])


class PartPath(str):
    """The path at which a part is written; a `str`, so that every library takes it.

    `part` is the part that the file became, once the `with` block has ended.
    """

    __slots__ = ("part",)

    part: Part
