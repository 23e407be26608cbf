"""Read the content of a root as rows, for lists and sums; nothing is made or changed by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from efsstate.cli import output
from efsstate.cli.lookup import find
from efsstate.cli.places import AREAS, Place
from efsstate.cli.places import folders as names
from efsstate.errors import EfsStateError
from efsstate.eviction import policy as policies
from efsstate.eviction import scan
from efsstate.eviction.report import SweepReport
from efsstate.eviction.scan import SweepOptions
from efsstate.format import dataset_layout, layout, record_layout
from efsstate.mount import clock

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from efsstate.mount.files import Mount

# The columns of a row with their kinds, for --filter and --sort.
KINDS = {
    "path": "text",
    "area": "text",
    "name": "text",
    "items": "count",
    "size": "size",
    "age": "age",
    "idle": "age",
    "state": "text",
}
# The state of a model in `summaries`: the first of these states that one of its versions has.
_MODEL_STATES = ("damaged", "active", "unmanaged", "inactive", "no version")
_DEEPEST = 8  # folders below a model or a dataset that are added up


class Inventory:
    """The rows of a root.

    `problems` lists unreadable places; `advance` is called for each folder that was read.
    """

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

    def summaries(self) -> list[dict[str, Any]]:
        """Return a row for each cache, checkpoint, model, dataset and records, with `items`.

        `age` and `idle` are of the item that changed, or was used, last.
        """
        sums: dict[tuple[str, str], dict[str, Any]] = {}
        for row in self.rows():
            key = row["area"], row["namespace"]
            total = sums.get(key)
            if total is None:
                total = sums[key] = {**row, "path": "/".join(key), "items": 0, "size": 0, "gone": 0}
            total["items"] += row.get("items", 1)
            total["size"] += row["size"]
            total["age"], total["idle"] = (min(total[k], row[k]) for k in ("age", "idle"))
            if row["area"] == layout.CACHE:
                total["gone"] += row["state"] != "live"
                total["state"] = f"{total['gone']:,} to go" if total["gone"] else "live"
            elif row["area"] == layout.MODELS:
                total["state"] = min(total["state"], row["state"], key=_MODEL_STATES.index)
        for total in sums.values():
            del total["gone"]
        return list(sums.values())

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each cache entry, checkpoint, model version, dataset and records."""
        yield from self.entries()
        yield from self.checkpoints()
        yield from self.versions()
        yield from self.datasets()
        yield from self.records()

    def contents(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each entry, shard, version, part or snapshot that is at the place.

        A checkpoint without shards has one row. A job with shards has a row, and then theirs come.
        """
        place = self._place
        if place is None or place.folder is None:
            raise ValueError("contents: a place with a folder is needed")
        if place.area == layout.CHECKPOINTS:
            yield from self._jobs(place.folder, place.rest)
            return
        find(self._mount, place.path)
        is_dataset = place.area == dataset_layout.DATASETS
        for row in self._parts(place.folder) if is_dataset else self.rows():
            if f"{row['path']}/".startswith(f"{place.path}/"):
                yield row

    # Entries

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each cache entry; `state` is "live" or why the sweep removes it."""
        for namespace in names(self._mount, layout.CACHE, self._place):
            try:
                policy, problem = policies.read(self._mount, namespace)
            except (OSError, EfsStateError) as error:
                self._note(error)
                continue
            if problem is not None:
                self._note(problem)
            yield from self._namespace(namespace, policy)

    def _namespace(self, namespace: str, policy: policies.Policy) -> Iterator[dict[str, Any]]:
        """Yield the rows of the namespace, or of the folder or entry in it that is asked for."""
        rest = self._place.rest if self._place is not None else None
        digit, _, digest = (rest or "").partition("/")
        if rest is not None:
            find(self._mount, f"{layout.CACHE}/{namespace}/{rest}")
        for folder in layout.entry_folders(namespace):
            if rest is None or folder.endswith(f"/{digit}"):
                for row in self._entries(namespace, folder, policy):
                    if not digest or row["path"] == f"{folder}/{digest}":
                        yield row
            self._advance(1)

    def _entries(
        self, namespace: str, folder: str, policy: policies.Policy
    ) -> Iterator[dict[str, Any]]:
        mount, report = self._mount, SweepReport(dry_run=True)
        options = SweepOptions(self.now, float("inf"), dry_run=True)
        try:
            for name, status, verdict in scan.judge_all(mount, folder, policy, options, report):
                reason = verdict
                if verdict == policies.UNSURE:
                    reason = scan.judge_by_header(mount, folder, name, policy, options, report)
                yield {
                    "path": f"{folder}/{name}",
                    "area": layout.CACHE,
                    "name": policy.name,
                    "namespace": namespace,
                    **self._times(status),
                    "state": reason or "live",
                }
        except (OSError, EfsStateError) as error:
            self._note(error)
        self.problems += report.error_texts

    def _times(self, status: os.stat_result) -> dict[str, Any]:
        return {
            "size": status.st_size,
            "age": self.now - status.st_mtime,
            "idle": self.now - policies.last_use(status) / 1e9,
        }

    # Checkpoints

    def checkpoints(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each checkpoint; `state` is "finished", "claimed" or "waiting"."""
        for component in names(self._mount, layout.CHECKPOINTS, self._place):
            yield from self._checkpoint(f"{layout.CHECKPOINTS}/{component}", component)
            self._advance(1)

    def _checkpoint(self, folder: str, component: str) -> Iterator[dict[str, Any]]:
        from efsstate.cli import jobs

        size, newest = self._weigh(folder)
        try:
            status = jobs.status(self._mount, folder)
        except (OSError, EfsStateError, ValueError) as error:  # ValueError: not our folder
            self._note(error)
            return
        age = self.now - (status["saved"] or newest)
        yield {
            "path": folder,
            "area": layout.CHECKPOINTS,
            "namespace": component,
            "name": status["name"],
            "items": status["items"],
            "size": size,
            "age": age,
            "idle": age,
            "state": status["state"],
            "status": status,
        }

    def _jobs(self, component: str, shard: str | None) -> Iterator[dict[str, Any]]:
        """Yield the rows of the checkpoint and its shards, or of the shard that is asked for."""
        from efsstate.cli import jobs

        folder = f"{layout.CHECKPOINTS}/{component}"
        if shard is not None:
            find(self._mount, f"{folder}/{shard}")
            yield from self._checkpoint(f"{folder}/{shard}", component)
            return
        find(self._mount, folder)
        yield from self._checkpoint(folder, component)
        for index in jobs.begun_shards(self._mount, folder):
            yield from self._checkpoint(f"{folder}/s{index}", component)

    # Models

    def versions(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each version of each model.

        `state` is "active", "inactive", "damaged", "unmanaged" (copied to the mount without a
        publication), or "no version".
        """
        if self._place is not None and self._place.area != layout.MODELS:
            return
        for model in self._models():
            component = layout.model_component(model)
            path = f"{layout.MODELS}/{component}"
            row = {"area": layout.MODELS, "name": model, "namespace": component}
            try:
                yield from self._versions(model, path, row)
            except (OSError, EfsStateError) as error:
                self._note(error)
            self._advance(1)

    def _models(self) -> list[str]:
        from efsstate.modelstore.versions import models

        if self._place is None or self._place.folder is None:
            return sorted(models(root=self._mount.path))
        find(self._mount, f"{layout.MODELS}/{self._place.folder}")
        return [layout.model_name(self._place.folder)]

    def _versions(self, model: str, path: str, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        from efsstate.modelstore.versions import is_unmanaged, versions

        root = self._mount.path
        try:
            for version in versions(model, root=root):
                age = self.now - version.changed
                state = "active" if version.active else "inactive"
                yield {
                    "path": f"{path}/versions/{version.id}",
                    **row,
                    "size": version.bytes,
                    "age": age,
                    "idle": age,
                    "state": "damaged" if version.problem else state,
                }
        except (LookupError, ValueError):
            size, newest = self._weigh(path)
            age = self.now - newest
            state = "unmanaged" if is_unmanaged(model, root=root) else "no version"
            yield {"path": path, **row, "size": size, "age": age, "idle": age, "state": state}

    # Datasets

    def datasets(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each dataset; `state` is "kept", because the sweep removes no part."""
        from efsstate.datasets.protocol import PartFolders

        for component in names(self._mount, dataset_layout.DATASETS, self._place):
            path = f"{dataset_layout.DATASETS}/{component}"
            size, newest = self._weigh(path)
            parts = PartFolders(self._mount, path).listing()
            age = self.now - newest
            yield {
                "path": path,
                "area": dataset_layout.DATASETS,
                "name": dataset_layout.dataset_name(component),
                "namespace": component,
                "items": len(parts),
                "size": size,
                "age": age,
                "idle": age,
                "state": "kept",
            }
            self._advance(1)

    def _parts(self, component: str) -> Iterator[dict[str, Any]]:
        """Yield a row for each part and each snapshot of a dataset."""
        from efsstate.datasets.protocol import PartFolders

        folders = PartFolders(self._mount, f"{dataset_layout.DATASETS}/{component}")
        row = {"area": dataset_layout.DATASETS, "namespace": component, "items": 1}
        for path, state in ((folders.parts, "part"), (folders.snapshots, "snapshot")):
            for file, status in self._mount.statuses(path):
                if _is_listed(file, state):
                    name = layout.readable(file) if state == "snapshot" else file
                    times = self._times(status)
                    yield {**row, "path": f"{path}/{file}", "name": name, **times, "state": state}

    # Records

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each namespace of records; `state` is the length of its windows."""
        for base in names(self._mount, record_layout.RECORDS, self._place):
            path = f"{record_layout.RECORDS}/{base}"
            component, width = record_layout.parse_namespace(base) or (base, 0)
            size, newest = self._weigh(path)
            age = self.now - newest
            yield {
                "path": path,
                "area": record_layout.RECORDS,
                "name": layout.readable(component),
                "namespace": base,
                "size": size,
                "age": age,
                "idle": age,
                "state": f"windows of {output.age_text(width)}",
            }
            self._advance(1)

    def _weigh(self, path: str, depth: int = 0) -> tuple[int, float]:
        """Return the bytes and the newest time of the file at `path`, or of all files below it."""
        size, newest = 0, 0.0
        try:
            status = find(self._mount, path)
            if not depth and not _is_folder(status):
                return status.st_size, status.st_mtime
            for item in self._mount.scan(path):
                status = item.stat(follow_symlinks=False)
                if not item.is_dir(follow_symlinks=False):
                    size, newest = size + status.st_size, max(newest, status.st_mtime)
                elif depth < _DEEPEST:
                    more, later = self._weigh(f"{path}/{item.name}", depth + 1)
                    size, newest = size + more, max(newest, later)
        except FileNotFoundError:
            pass  # removed meanwhile
        except (OSError, EfsStateError) as error:
            self._note(error)
        return size, newest

    def _note(self, error: BaseException) -> None:
        self.problems.append(output.words(error))


def _is_listed(name: str, state: str) -> bool:
    return dataset_layout.is_part(name) if state == "part" else name[0] != "."


def _is_folder(status: os.stat_result) -> bool:
    import stat

    return stat.S_ISDIR(status.st_mode)


def count_folders(mount: Mount) -> int:
    """Return how many folders an inventory reads, for a progress bar."""
    areas = [(area, 16 if area == layout.CACHE else 1) for area in AREAS]
    return sum(weight * sum(1 for _ in names(mount, area, None)) for area, weight in areas)
