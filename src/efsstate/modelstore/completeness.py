"""Whether sharded weights are complete: an index names the files that its tensors are in."""

from __future__ import annotations

from efsstate.errors import EfsStateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.modelstore.source import Source

_INDEX = ".index.json"  # model.safetensors.index.json, pytorch_model.bin.index.json
_LARGEST = 64 << 20  # bytes of an index that is read


def require_complete(source: Source) -> None:
    """Raise EfsStateError if an index of sharded weights names a file that is not published."""
    for name, status in source.files.items():
        if not name.endswith(_INDEX) or status.st_size > _LARGEST:
            continue
        folder = name.rpartition("/")[0]
        needed = {f"{folder}/{file}".lstrip("/") for file in _named_files(source, name)}
        missing = sorted(needed - source.files.keys())
        if missing:
            raise EfsStateError(
                f"{source.path}/{name}: can't be published: it names {len(missing)} files that are"
                f" missing, {missing[0]!r} first; complete the download, or leave the index out"
                f" (exclude={[name]!r})"
            )


def _named_files(source: Source, name: str) -> set[str]:
    """Return the files that an index names; an unknown kind of index names none."""
    import json

    from efsstate.modelstore import reader

    try:
        index = json.loads(bytes(reader.whole(source.open(name))))
        return set(map(str, index["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()
