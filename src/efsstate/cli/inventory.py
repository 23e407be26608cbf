"""What is below the root, as rows for lists and sums: cache entries, checkpoints and model versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from efsstate.cli.places import Place
from efsstate.cli.places import folders as names
from efsstate.errors import EfsStateError
from efsstate.eviction import policy as policies
from efsstate.eviction import scan as folders
from efsstate.eviction.report import SweepReport
from efsstate.eviction.scan import SweepOptions
from efsstate.format import layout
from efsstate.mount import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from efsstate.mount.files import Mount

# The columns of a row, and of what kind they are for --filter and --sort.
KINDS = {
    "path": "text",
    "area": "text",
    "name": "text",
    "size": "size",
    "age": "age",
    "idle": "age",
    "state": "text",
}


_UNTOLD: dict[str, Any] = {
    "finished": False,
    "claimed": False,
    "saved": None,
    "position": "?",
    "items": 0,
    "saves": 0,
    "owner": {},
}


class Inventory:
    """All rows of a root. `problems` gathers what could not be read; `advance` is told of each folder that was looked at."""

    def __init__(
        self,
        mount: Mount,
        place: Place | None = None,
        advance: Callable[[float], None] | None = None,
    ) -> None:
        self._mount, self._place = mount, place
        self._advance = advance or (lambda _amount: None)
        mount.ask_time("")
        self.now = clock.now()
        self.problems: list[str] = []

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row for each cache entry, checkpoint, and model version."""
        yield from self.entries()
        yield from self.checkpoints()
        yield from self.versions()

    def entries(self) -> Iterator[dict[str, Any]]:
        """A row for each cache entry; `state` is "live" or why the sweep takes it."""
        for namespace in names(self._mount, layout.CACHE, self._place):
            try:
                policy, problem = policies.read(self._mount, namespace)
            except (OSError, EfsStateError) as error:
                self._problem(error)
                continue
            if problem is not None:
                self._problem(problem)
            for folder in layout.entry_folders(namespace):
                yield from self._entries(namespace, folder, policy)
                self._advance(1)

    def _entries(
        self, namespace: str, folder: str, policy: policies.Policy
    ) -> Iterator[dict[str, Any]]:
        report, wish = SweepReport(dry_run=True), SweepOptions(self.now, float("inf"), dry_run=True)
        try:
            for name, found, reason in folders.judge_all(self._mount, folder, policy, wish, report):
                if reason == policies.UNSURE:
                    reason = folders.judge_by_header(
                        self._mount, folder, name, policy, wish, report
                    )  # noqa: PLW2901
                yield {
                    "path": f"{folder}/{name}",
                    "area": layout.CACHE,
                    "name": policy.name,
                    "namespace": namespace,
                    "size": found.st_size,
                    "age": self.now - found.st_mtime,
                    "idle": self.now - policies.last_use(found) / 1e9,
                    "state": reason or "live",
                }
        except (OSError, EfsStateError) as error:
            self._problem(error)
        self.problems += report.error_texts

    def checkpoints(self) -> Iterator[dict[str, Any]]:
        """A row for each checkpoint; `state` is "finished", "claimed" or "waiting"."""
        from efsstate.checkpoints.checkpoint import checkpoint

        for name in names(self._mount, layout.CHECKPOINTS, self._place):
            size, newest, _ = self._weigh(f"{layout.CHECKPOINTS}/{name}")
            told = dict(_UNTOLD)
            try:
                # A name that is too long to be read back from its folder has no status, but its size is told.
                if layout.component(layout.readable(name)) == name:
                    told = dict(checkpoint(layout.readable(name), root=self._mount.path).status())
            except (
                OSError,
                EfsStateError,
                ValueError,
            ) as error:  # ValueError: a folder that no name of ours makes
                self._problem(error)
                continue
            state = "finished" if told["finished"] else "claimed" if told["claimed"] else "waiting"
            age = self.now - (told["saved"] or newest)
            shown = {
                "name": layout.readable(name),
                "size": size,
                "age": age,
                "idle": age,
                "state": state,
            }
            yield {
                "path": f"{layout.CHECKPOINTS}/{name}",
                "area": layout.CHECKPOINTS,
                "namespace": name,
                **shown,
                "status": told,
            }
            self._advance(1)

    def versions(self) -> Iterator[dict[str, Any]]:
        """A row for each version of each model; `state` is "active", "inactive", "damaged", "plain" (put there by hand), or "no version"."""
        from efsstate.modelstore.versions import is_unmanaged, versions

        for name in names(self._mount, layout.MODELS, self._place):
            row = {"area": layout.MODELS, "name": layout.model_name(name), "namespace": name}
            path = f"{layout.MODELS}/{name}"
            try:
                for one in versions(layout.model_name(name), root=self._mount.path):
                    age = self.now - one.changed
                    state = "damaged" if one.problem else "active" if one.active else "inactive"
                    yield {
                        "path": f"{path}/versions/{one.id}",
                        **row,
                        "size": one.bytes,
                        "age": age,
                        "idle": age,
                        "state": state,
                    }
            except (LookupError, ValueError):
                size, newest, _ = self._weigh(path)
                age = self.now - newest
                state = (
                    "plain"
                    if is_unmanaged(layout.model_name(name), root=self._mount.path)
                    else "no version"
                )
                yield {"path": path, **row, "size": size, "age": age, "idle": age, "state": state}
            except (OSError, EfsStateError) as error:
                self._problem(error)
            self._advance(1)

    def _weigh(self, folder: str, depth: int = 0) -> tuple[int, float, int]:
        """Bytes, newest time and number of the files in `folder` and below it."""
        size, newest, count = 0, 0.0, 0
        try:
            for item in self._mount.scan(folder):
                found = item.stat(follow_symlinks=False)
                if item.is_dir(follow_symlinks=False):
                    if depth < 8:
                        more, later, below = self._weigh(f"{folder}/{item.name}", depth + 1)
                        size, newest, count = size + more, max(newest, later), count + below
                else:
                    size, newest, count = (
                        size + found.st_size,
                        max(newest, found.st_mtime),
                        count + 1,
                    )
        except FileNotFoundError:
            pass  # removed meanwhile
        except (OSError, EfsStateError) as error:
            self._problem(error)
        return size, newest, count

    def _problem(self, error: BaseException) -> None:
        from efsstate.cli.output import words

        self.problems.append(words(error))


def total_folders(mount: Mount) -> int:
    """How many folders an inventory looks at, for a progress bar."""
    count = 0
    for area, each in ((layout.CACHE, 16), (layout.CHECKPOINTS, 1), (layout.MODELS, 1)):
        count += each * sum(1 for _ in names(mount, area, None))
    return count
