"""Sweep records: remove whole windows, once nobody looks into them any more."""

from __future__ import annotations

from efsstate.errors import ForeignFilesError
from efsstate.eviction import removal
from efsstate.format import grammar
from efsstate.format import record_layout as names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from efsstate.mount.files import Mount

# A process that was frozen in a window may still look for its mark, or add to its records.
SPARED = 86_400.0  # seconds after a window counts no more; no invocation is frozen for longer


def sweep(
    mount: Mount,
    folder: str,
    now: float,
    note: Callable[[str, int], object],
    *,
    dry_run: bool,
    is_over: Callable[[], bool] = bool,
) -> bool:
    """Remove the windows of the records at `folder` that count no more; return True if all are.

    `now` is the server's time. `note` is called with a reason and the bytes for each file. It ends
    early if `is_over`, but not before some are removed. Raise `ForeignFilesError` at the end for
    names that the format does not define, which stay.
    """
    parsed = names.parse_namespace(folder.rpartition("/")[2])
    if parsed is None:
        raise ForeignFilesError(mount.path_of(folder), [mount.path_of(folder)])
    foreign: list[str] = []
    listing = mount.names(folder)
    marks: dict[int, list[tuple[int, str]]] = {}
    for name in listing:
        mark = names.parse_mark(name)
        if mark is not None:
            marks.setdefault(mark[0], []).append((mark[1], name))
        elif not names.is_number(name):
            foreign.append(mount.path_of(folder, name))
    has_begun = False
    for index in sorted({*names.windows(listing), *marks}):
        reach = max((seconds for seconds, _ in marks.get(index, ())), default=0)
        # MUT: a-window-that-counts-is-not-swept
        if (index + 1) * parsed[1] + reach + SPARED > now:
            continue
        if has_begun and is_over():
            return False
        has_begun = True
        window = f"{folder}/{index}"
        if dry_run:
            _note_all(mount, window, note)
            continue
        removed = removal.remove_flat(mount, window, grammar.record_window, is_over=is_over)
        foreign += removed.foreign
        for count in range(removed.removed):
            note("record", 0 if count else removed.size)
        if not removed.is_complete:
            return False
        # The marks last: without them, others would look into the window as long as into theirs.
        for _, name in () if removed.foreign else marks.get(index, ()):
            mount.remove(folder, name)
    if foreign:
        raise ForeignFilesError(mount.path_of(folder), foreign)
    return True


def _note_all(mount: Mount, window: str, note: Callable[[str, int], object]) -> None:
    for item in mount.scan(window):
        if grammar.record_window(item.name, item.is_dir(follow_symlinks=False)) is not None:
            is_file = item.is_file(follow_symlinks=False)
            note("record", item.stat(follow_symlinks=False).st_size if is_file else 0)
