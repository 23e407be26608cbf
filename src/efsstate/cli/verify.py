"""`efsstate verify`: read every stored byte, and check it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from efsstate.cli import completion, output
from efsstate.cli.inventory import count_folders
from efsstate.cli.output import Consent, Output, count_text
from efsstate.cli.places import folders, locate, open_root
from efsstate.errors import CorruptEntryError, EfsStateError, UnknownFormatError
from efsstate.eviction.policy import is_well_formed
from efsstate.format import dataset_layout, layout, record_layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from efsstate.cli.places import Place
    from efsstate.mount.files import Mount

_REFUSED = (
    "calls with its key fail until the record expires; remove this file if they may run again. If"
    " records are signed, run this with the functions' EFSSTATE_SIGNING_KEY first"
)
_LOST = "CURRENT or a label names a version, and the model has no versions"
_NOT_TOLD = "damaged, or signed with another key: run this with the functions' EFSSTATE_SIGNING_KEY"


@click.command("verify")
@click.argument("place", required=False, shell_complete=completion.place)
@click.option("--repair", is_flag=True, help="Remove damaged cache entries.")
@output.common
@output.deleting
def command(
    place: str | None, repair: bool, out: Output, root: str | None, consent: Consent
) -> int:
    """Check the checksum of every cache entry, checkpoint, model and record, or those at PLACE.

    Exit code 1 if something is damaged and was not repaired. --repair removes damaged cache
    entries. An entry that may only be signed with another key stays: run this with the functions'
    EFSSTATE_SIGNING_KEY. A damaged save of a checkpoint stays, and readers pass over it with a
    warning. A damaged model version stays: publish it again, under a new id. A damaged record
    stays: its key is refused until it expires.
    """
    mount = open_root(root)
    located = locate(mount, place) if place is not None else None
    if located is not None and located.area == dataset_layout.DATASETS:
        raise click.UsageError(f"{place}: check snapshots with `efsstate dataset verify`")
    with out.progress("Verifying", count_folders(mount)) as advance:
        check = _Check(mount, located, advance)
        findings = list(check.findings())
    damaged = [finding for finding in findings if finding["repairable"]]
    repaired = 0
    if repair and damaged:
        size = output.bytes_text(sum(finding["size"] for finding in damaged))
        what = f"{count_text(len(damaged), 'damaged cache entry', 'damaged cache entries')}, {size}"
        if consent(what):
            for finding in damaged:
                repaired += mount.remove(finding["folder"], finding["entry"])
                finding["level"], finding["do"] = "ok", "removed; its readers recompute it"
        elif consent.dry_run:
            out.say(f"would remove {what}")
    code = out.findings(findings)
    out.say(
        f"{count_text(check.checked, 'file')}, {output.bytes_text(check.size)} checked:"
        f" {count_text(len(findings), 'finding')}, {repaired} repaired"
    )
    shown = [{key: each[key] for key in ("level", "where", "what", "do")} for each in findings]
    out.document(
        "verify",
        root=mount.path,
        checked=check.checked,
        size=check.size,
        repaired=repaired,
        findings=shown,
    )
    return output.COULD_NOT_CHECK if check.failed and code == output.FINE else code


class _Check:
    """The files that were checked; `failed` is True if something could not be read at all."""

    def __init__(self, mount: Mount, place: Place | None, advance: Callable[[float], None]) -> None:
        self._mount, self._place, self._advance = mount, place, advance
        self._device = mount.stat("", ".").st_dev
        self.checked = self.sound = self.size = 0
        self.failed = False

    def findings(self) -> Iterator[dict[str, Any]]:
        """Yield a finding for each fault."""
        for namespace in folders(self._mount, layout.CACHE, self._place):
            if layout.is_component(namespace):
                yield from self._namespace(namespace)
        for name in folders(self._mount, layout.CHECKPOINTS, self._place):
            yield from self._checkpoint(f"{layout.CHECKPOINTS}/{name}")
            self._advance(1)
        for name in folders(self._mount, layout.MODELS, self._place):
            yield from self._model(name)
            self._advance(1)
        for base in folders(self._mount, record_layout.RECORDS, self._place):
            yield from self._records(f"{record_layout.RECORDS}/{base}")
            self._advance(1)

    # Cache entries

    def _namespace(self, namespace: str) -> Iterator[dict[str, Any]]:
        """Yield the findings of a namespace, and decide which of its entries can be repaired.

        Without the key that an entry was signed with, a sound entry looks like a damaged one. Only
        a namespace is readable if its POLICY, and as many entries as not, match.
        """
        policy = list(
            self._files(f"{layout.CACHE}/{namespace}", lambda name: name == layout.POLICY)
        )
        before = self.sound
        findings: list[dict[str, Any]] = []
        for folder in layout.entry_folders(namespace):
            findings += self._files(folder, layout.is_digest)
            self._advance(1)
        mismatched = [finding for finding in findings if finding["is_mismatch"]]
        # MUT: what-may-be-signed-is-not-damaged
        if policy or self.sound - before < max(1, len(mismatched)):
            for finding in [*policy, *mismatched]:
                finding |= {"repairable": False, "do": _NOT_TOLD}
        yield from policy
        yield from findings

    # Files of our own format

    def _files(self, folder: str, is_wanted: Callable[[str], bool]) -> Iterator[dict[str, Any]]:
        try:
            for item in self._mount.scan(folder):
                if not is_wanted(item.name):
                    continue
                check = self._revision if record_layout.is_revision(item.name) else self._file
                if (finding := check(folder, item.name)) is not None:
                    yield finding
        except (OSError, EfsStateError) as error:
            self.failed = True
            path = self._mount.path_of(folder)
            yield _finding(path, output.words(error), "look at its permissions")

    def _file(self, folder: str, name: str) -> dict[str, Any] | None:
        """Return a finding if the file has a fault, else None."""
        mount, path = self._mount, self._mount.path_of(folder, name)
        try:
            status = mount.stat(folder, name)
            if status.st_dev != self._device:
                return None  # mounted there, and not ours
            mount.read_entry(folder, name)
            mount.restore_use(folder, name, status)  # to check is not to use
        except FileNotFoundError:
            return None
        except UnknownFormatError as error:
            return _finding(path, str(error).removeprefix(f"{path}: "), "upgrade efsstate")
        except CorruptEntryError as error:
            self.checked += 1
            mount.restore_use(folder, name, status)
            return self._damage(folder, name, status.st_size, error)
        except OSError as error:
            self.failed = True
            return _finding(path, error.strerror or str(error), "look at its permissions")
        self.checked += 1
        self.sound += 1
        self.size += status.st_size
        return None

    def _damage(
        self, folder: str, name: str, size: int, error: CorruptEntryError
    ) -> dict[str, Any]:
        path = self._mount.path_of(folder, name)
        if not folder.startswith(f"{layout.CACHE}/"):
            is_record = folder.startswith(f"{record_layout.RECORDS}/")
            do = _REFUSED if is_record else "readers pass over it for the save before it"
            return _finding(path, error.reason, do)
        return _finding(path, error.reason, "efsstate verify --repair") | {
            "size": size,
            "repairable": layout.is_digest(name),
            "is_mismatch": self._may_be_signed(folder, name),
            "folder": folder,
            "entry": name,
        }

    def _may_be_signed(self, folder: str, name: str) -> bool:
        """Return True if the entry may be sound, and signed with another key."""
        # MUT: an-entry-that-cannot-be-read-is-not-removed
        try:
            return is_well_formed(self._mount, folder, name)
        except OSError:
            return True

    def _checkpoint(self, folder: str) -> Iterator[dict[str, Any]]:
        yield from self._files(folder, _is_save)
        for name in self._mount.names(folder):
            if (layout.parse_shard(name) or "")[:1] == ("s",):
                yield from self._files(f"{folder}/{name}", _is_save)

    # Records

    def _records(self, folder: str) -> Iterator[dict[str, Any]]:
        for window in record_layout.windows(self._mount.names(folder)):
            yield from self._files(f"{folder}/{window}", _is_record)

    def _revision(self, folder: str, name: str) -> dict[str, Any] | None:
        """Return a finding if the link is not that of a revision, else None."""
        from efsstate.mount import links
        from efsstate.records.revision import parse

        path = self._mount.path_of(folder, name)
        try:
            text = links.read(self._mount, folder, name)
            fault = None if parse(text) is not None else "its text is no revision's"
        except FileNotFoundError:
            return None
        except CorruptEntryError as error:
            fault = error.reason
        except OSError as error:
            self.failed = True
            return _finding(path, error.strerror or str(error), "look at its permissions")
        self.checked += 1
        if fault is not None:
            return _finding(path, fault, _REFUSED)
        self.size += len(text)
        return None

    # Models

    def _model(self, name: str) -> Iterator[dict[str, Any]]:
        from efsstate.modelstore.versions import findings, versions

        path = self._mount.path_of(layout.MODELS, name)
        model, root = layout.model_name(name), self._mount.path
        read = 0

        def note_progress(done: int, _total: int) -> None:
            nonlocal read
            read = done

        try:
            files = sum(version.files for version in versions(model, root=root))
            for where, what, do in findings(model, root=root, progress=note_progress):
                yield _finding(where, what, do)
        except (LookupError, ValueError, NotImplementedError):
            yield from self._lost_versions(name)
            return  # else it is unmanaged, or was removed: there is nothing to check it by
        except (OSError, EfsStateError) as error:
            self.failed = True
            yield _finding(path, output.words(error), "look at its permissions")
            return
        self.checked += files
        self.size += read

    def _lost_versions(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield a finding if CURRENT or a label names a version, and the model has none."""
        from efsstate.modelstore import catalog

        mount, model = self._mount, f"{layout.MODELS}/{name}"
        path = mount.path_of(model)
        try:
            is_served = any(map(layout.is_pointer, mount.names(layout.version_folder(model, ""))))
            is_lost = is_served and not catalog.is_removed(mount, model)
            # MUT: a-model-that-lost-its-versions-is-damaged
            if is_lost and not catalog.list_versions(mount, model):
                yield _finding(path, _LOST, "publish one, or restore them from a backup")
        except (OSError, EfsStateError) as error:
            self.failed = True
            yield _finding(path, output.words(error), "look at its permissions")


def _is_save(name: str) -> bool:
    return (layout.parse_claim(name) or "")[:1] == ("g",)


def _is_record(name: str) -> bool:
    is_value = record_layout.is_value(name) and not layout.is_temporary(name)
    return is_value or record_layout.is_revision(name)


def _finding(where: str, what: str, do: str) -> dict[str, Any]:
    return {
        "level": "error",
        "where": where,
        "what": what,
        "do": do,
        "repairable": False,
        "is_mismatch": False,
        "size": 0,
    }
