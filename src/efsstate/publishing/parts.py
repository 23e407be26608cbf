"""Copy the objects of an S3 prefix into a dataset: each object a part, once."""

from __future__ import annotations

from efsstate.errors import DeadlineExceeded, EfsStateError
from efsstate.format import dataset_layout as layout
from efsstate.mount.drafts import PartialFile
from efsstate.parallel import each
from efsstate.publishing.bucket import CONNECTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.datasets.dataset import Dataset
    from efsstate.publishing.bucket import Bucket, Object


def key_of(bucket: str, item: Object) -> str:
    """Return the key of an object's part: a new content of the object is another part."""
    return f"s3://{bucket}/{item.key}@{item.etag}"


def suffix_of(name: str) -> str:
    """Return the end of an object's name that its part keeps; "" if no part can have it."""
    last = name.rpartition("/")[2]
    _, point, rest = last.lstrip(".").partition(".")
    try:
        return layout.check_suffix(point + rest)
    except ValueError:
        return ""


def copy(store: Bucket, objects: list[Object], dataset: Dataset) -> dict[str, object]:
    """Add the objects that are no parts yet; return `finished`, `files`, `added` and `total`.

    Objects with a part that was removed are left out. The next call continues: two listings show
    the keys that are done. Raise `EfsStateError` if S3 refuses, or if the time suffices for no
    object at all.
    """
    folders = dataset.folders(reading=False)
    settled = folders.settled()
    missing = [
        item
        for item in objects
        if layout.key_digest(key_of(store.bucket, item), folders.mount.key) not in settled
    ]
    copied = added = 0
    late = f"{store.source}: the deadline came; call again"
    try:
        for _item, is_new in each(
            lambda item: _add(store, item, dataset), missing, threads=CONNECTIONS, late=lambda: late
        ):
            copied, added = copied + 1, added + is_new
    except DeadlineExceeded:
        if not copied:
            raise EfsStateError(
                f"{store.source}: the time sufficed for no object; give the function a longer"
                " timeout"
            ) from None
    return {
        "finished": copied == len(missing),
        "files": len(objects),
        "added": added,
        "total": sum(item.size for item in objects),
    }


def _add(store: Bucket, item: Object, dataset: Dataset) -> bool:
    """Copy one object; return True if it is a new part."""
    mount = dataset.folders(reading=False).mount
    with dataset.part(suffix_of(item.name), key=key_of(store.bucket, item)) as path:
        folder, _, name = path.removeprefix(f"{mount.path}/").rpartition("/")
        target = PartialFile(mount, folder, name)
        try:
            if item.size:
                store.fetch(item, 0, item.size, target)
            target.finish(item.size)
        finally:
            target.close()
    return path.part.added
