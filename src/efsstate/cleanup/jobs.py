"""Sweep checkpoints, models, datasets, records, and abandoned copies from S3.

Checkpoints are swept in groups of some sixteen, because there may be a million, and a mark for each
would double their files. So that few names are held, at most 65,536 are listed at a time.
"""

from __future__ import annotations

import stat
from collections import defaultdict
from functools import partial
from zlib import crc32

from efsstate import process
from efsstate.errors import EfsStateError, ForeignFilesError, UnknownFormatError
from efsstate.eviction import removal, scan
from efsstate.eviction.scan import BudgetExhausted
from efsstate.format import dataset_layout, grammar, layout, record_layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from efsstate.cleanup.work import Job, Work
    from efsstate.eviction.report import SweepReport
    from efsstate.mount.files import Mount

_GROUP = 16  # checkpoints, or shards, of a group: few enough for the shortest of budgets
_WINDOW = 65_536  # names held at a time


def checkpoint_units(work: Work) -> Iterator[dict[str, Job]]:
    """Yield the groups of checkpoints, in as many portions as their names need."""
    count = sum(1 for _ in _list(work, reports=False))
    groups = 1 << max(0, count // _GROUP - 1).bit_length()
    windows = -(-count // _WINDOW)
    for window in range(max(1, windows)):
        names: dict[int, list[str]] = defaultdict(list)
        for name in _list(work, reports=not window):
            group = crc32(name.encode()) % groups
            if group % max(1, windows) == window:
                names[group].append(name)
        yield {
            f"{layout.CHECKPOINTS}#{group}/{groups}": partial(_sweep_group, work, members)
            for group, members in names.items()
        }


def _list(work: Work, *, reports: bool) -> Iterator[str]:
    """Yield the names of the checkpoints; if `reports`, tidy up and report the others.

    Raise BudgetExhausted when the time is up.
    """
    mount, options, report = work.mount, work.options, work.report
    for seen, item in enumerate(mount.scan(layout.CHECKPOINTS), 1):
        if seen % scan.EVERY == 0 and options.is_too_late():
            raise BudgetExhausted
        try:
            status = item.stat(follow_symlinks=False)
        except OSError as error:
            process.raise_of_handler(error)
            continue  # removed since it was listed
        is_folder = stat.S_ISDIR(status.st_mode) and not options.is_elsewhere(status)
        if is_folder and layout.is_component(item.name):
            yield item.name
        elif reports and is_folder and layout.is_temporary(item.name):
            _remove_rest(work, f"{layout.CHECKPOINTS}/{item.name}", status)
        elif reports:
            scan.tidy(mount, layout.CHECKPOINTS, item.name, status, options, report)


def _remove_rest(work: Work, folder: str, status: os.stat_result) -> None:
    """Remove the rest of a checkpoint that a killed sweep had renamed away."""
    options, report = work.options, work.report
    if options.now - status.st_mtime < scan.ABANDONED:
        return
    if _may_count(work.mount, folder):
        report.leave("foreign", work.mount.path_of(folder))
        return
    if not options.dry_run:
        rest = removal.remove_tree(work.mount, folder, grammar.checkpoint, is_over=options.is_over)
        for path in rest.foreign:
            report.leave("foreign", path)
        if rest.foreign or not rest.is_complete:
            return
    report.note_removed("temporary")


def _may_count(mount: Mount, folder: str) -> bool:
    """Return True if the saves in a folder that a removal had renamed away may count.

    The remover looks for later claims after its rename, and then renames the folder back. If it was
    killed between the two, the folder has saves, and no REMOVED.
    """
    names = mount.names(folder)
    has_saves = layout.SHARDS in names or bool(layout.parse_claims(names)["g"])
    # MUT: saves-that-may-count-are-not-swept
    return has_saves and layout.REMOVED not in names


def _sweep_group(work: Work, names: list[str], report: SweepReport) -> bool:
    """Sweep the checkpoints `names`; return True if the time sufficed."""
    report.folders += 1
    for name in names:
        if work.options.is_over():
            return False
        folder = f"{layout.CHECKPOINTS}/{name}"
        # MUT: a-bad-checkpoint-does-not-end-its-group
        try:
            if not _sweep_checkpoint(work, folder, report):
                return False
        except UnknownFormatError as error:
            report.leave("newer", error.path)
        except ForeignFilesError as error:
            for path in error.paths:
                report.leave("foreign", path)
        except FileNotFoundError:
            continue  # removed meanwhile
        except Exception as error:
            report.note_error(error, work.mount.path_of(folder))
    return True


def _sweep_checkpoint(work: Work, folder: str, report: SweepReport) -> bool:
    from efsstate.checkpoints import retention

    mount, options = work.mount, work.options
    names = mount.names(folder)
    removed = retention.sweep(mount, folder, options.now, dry_run=options.dry_run, names=names)
    for reason, size in removed:
        report.note_removed(reason, size)
        if reason == "checkpoint":
            return True
    shards = retention.shard_indexes(names)
    groups = range(-(-len(shards) // _GROUP))
    parts: dict[str, Job] = {
        f"{folder}#{group}/{len(groups)}": partial(
            _sweep_shards, work, folder, shards[group :: len(groups)]
        )
        for group in groups
    }
    return work.do_parts(parts, report)


def _sweep_shards(work: Work, folder: str, shards: list[int], report: SweepReport) -> bool:
    """Remove the old saves of these few shards; return True if the time sufficed."""
    from efsstate.checkpoints import retention

    for index in shards:
        if work.options.is_too_late():
            return False
        path = f"{folder}/s{index}"
        try:
            for reason, size in retention.sweep_saves(
                work.mount, path, dry_run=work.options.dry_run
            ):
                report.note_removed(reason, size)
        except UnknownFormatError as error:
            report.leave("newer", error.path)
        except FileNotFoundError:
            continue  # removed meanwhile
        except (OSError, EfsStateError) as error:
            report.note_error(error, work.mount.path_of(path))
    return True


def folder_units(work: Work, area: str) -> Iterator[tuple[str, Job]]:
    """Yield a unit for each model, dataset, or namespace of records in `area`."""
    make_job = {layout.MODELS: model_job, dataset_layout.DATASETS: dataset_job}.get(
        area, record_job
    )
    for name in work.folders(area, work.report, is_strict=area != layout.MODELS):
        yield f"{area}/{name}", make_job(work, name)


def dataset_job(work: Work, name: str) -> Job:
    """Return the job that removes abandoned and expired files of the dataset in folder `name`."""

    def sweep_dataset(report: SweepReport) -> bool:
        from efsstate.datasets import retention

        report.folders += 1
        folder, options = f"{dataset_layout.DATASETS}/{name}", work.options
        try:
            for reason, size in retention.sweep(
                work.mount, folder, options.now, dry_run=options.dry_run
            ):
                report.note_removed(reason, size)
                if options.is_over():
                    return False
        except ForeignFilesError as error:
            for path in error.paths:
                report.leave("foreign", path)
        return True

    return sweep_dataset


def record_job(work: Work, base: str) -> Job:
    """Return the job that removes the windows of the records in folder `base` that are over."""

    def sweep_records(report: SweepReport) -> bool:
        from efsstate.records import retention

        report.folders += 1
        folder, options = f"{record_layout.RECORDS}/{base}", work.options
        try:
            return retention.sweep(
                work.mount,
                folder,
                options.now,
                report.note_removed,
                dry_run=options.dry_run,
                is_over=options.is_over,
            )
        except ForeignFilesError as error:
            for path in error.paths:
                report.leave("foreign", path)
        return True

    return sweep_records


def model_job(work: Work, folder: str) -> Job:
    """Return the job that prunes the versions of the model in `folder`."""

    def prune_model(report: SweepReport) -> bool:
        from efsstate.modelstore import pruning
        from efsstate.modelstore.versions import prune_own, versions

        name, root = layout.model_name(folder), work.mount.path
        path = work.mount.path_of(layout.MODELS, folder)
        report.folders += 1
        try:
            try:
                listed = versions(name, root=root)
            except LookupError:
                listed = []  # only rests of killed publications
            sizes = {version.id: version.bytes for version in listed}
            for version in listed:
                if pruning.is_damaged(work.mount, layout.model_folder(name), version):
                    report.leave("damaged", f"{path}/{layout.VERSIONS}/{version.id}")
            removed, foreign = prune_own(
                name, keep=2, grace="24h", dry_run=work.options.dry_run, root=root
            )
            for version_id in removed:
                report.note_removed("version", sizes.get(version_id, 0))
            for each in foreign:
                report.leave("foreign", each)
        except (LookupError, ValueError):
            pass  # an unmanaged model, or no model: not ours to clean
        return True

    return prune_model


def incoming_job(work: Work) -> Job:
    """Return the job that removes abandoned copies from S3."""

    def remove_copies(report: SweepReport) -> bool:
        from efsstate.eviction import incoming

        for folder in incoming.abandoned(work.mount):
            size = 0 if work.options.dry_run else incoming.remove_unused(work.mount, folder)
            report.note_removed("temporary", size)
            if work.options.is_over():
                return False
        return True

    return remove_copies
