"""Whether sharded weights are complete: an index names the files that its tensors are in."""

from __future__ import annotations

from efsstate.errors import EfsStateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Data = bytes | memoryview

_INDEX = ".index.json"  # model.safetensors.index.json, pytorch_model.bin.index.json
_LARGEST = 64 << 20  # bytes of an index that is read


def require_complete(path: str, sizes: Mapping[str, int], read: Callable[[str], Data]) -> None:
    """Raise EfsStateError if an index of sharded weights names a file that is not in `sizes`.

    `path` is what is to be published, `sizes` its files, and `read` returns the bytes of one.
    """
    for name, size in sizes.items():
        if not name.endswith(_INDEX) or size > _LARGEST:
            continue
        folder = name.rpartition("/")[0]
        needed = {f"{folder}/{file}".lstrip("/") for file in _named_files(read(name))}
        missing = sorted(needed - sizes.keys())
        if missing:
            raise EfsStateError(
                f"{path.rstrip('/')}/{name}: can't be published: it names {len(missing)} files that"
                f" are missing, {missing[0]!r} first; complete them, or publish without the"
                " index"
            )


def _named_files(data: Data) -> set[str]:
    """Return the files that an index names; an unknown kind of index names none."""
    import json

    try:
        return set(map(str, json.loads(bytes(data))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()
