"""`efsstate verify`: reads every byte of what is stored and checks it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from efsstate.cli import output
from efsstate.cli.inventory import total_folders
from efsstate.cli.output import Consent, Output
from efsstate.cli.places import folders, locate, open_root
from efsstate.errors import CorruptEntryError, EfsStateError, UnknownFormatError
from efsstate.format import layout
from efsstate.mount import store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from efsstate.cli.places import Place
    from efsstate.mount.files import Mount


@click.command("verify")
@click.argument("place", required=False)
@click.option(
    "--repair", is_flag=True, help="Remove damaged cache entries: their readers miss and compute."
)
@output.common
@output.deleting
def command(
    place: str | None, repair: bool, out: Output, root: str | None, consent: Consent
) -> int:
    """Check the checksum of every cache entry, checkpoint and model, or of those at PLACE.

    Exit code 1 where something is damaged and was not repaired. --repair removes damaged cache entries. A damaged
    checkpoint generation stays: its readers pass it over with a warning; a damaged model version stays: publish it again,
    under a new id.
    """
    mount = open_root(root)
    where = locate(mount, place) if place is not None else None
    with out.progress("Verifying", total_folders(mount)) as advance:
        check = _Check(mount, where, advance)
        found = list(check.findings())
    damaged = [one for one in found if one["repairable"]]
    repaired = 0
    if repair and damaged:
        size = sum(one["size"] for one in damaged)
        if consent(f"{len(damaged)} damaged cache entries, {output.bytes_text(size)}"):
            for one in damaged:
                repaired += mount.remove(one["folder"], one["entry"])
                one["level"], one["do"] = "ok", "removed: its readers compute it anew"
        elif consent.dry_run:
            out.say(f"would remove {len(damaged)} damaged cache entries, {output.bytes_text(size)}")
    code = out.findings(found)
    out.say(
        f"{check.checked:,} files, {output.bytes_text(check.size)} checked: {len(found)} findings, {repaired} repaired"
    )
    shown = [{key: one[key] for key in ("level", "where", "what", "do")} for one in found]
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
    """Counts what was checked; `failed` tells whether something could not be read at all."""

    def __init__(self, mount: Mount, place: Place | None, advance: Callable[[float], None]) -> None:
        self._mount, self._place, self._advance = mount, place, advance
        self.checked = self.size = 0
        self.failed = False

    def findings(self) -> Iterator[dict[str, Any]]:
        """What is wrong."""
        for namespace in folders(self._mount, layout.CACHE, self._place):
            yield from self._files(
                f"{layout.CACHE}/{namespace}", lambda name: name == layout.POLICY
            )
            for folder in layout.entry_folders(namespace):
                yield from self._files(folder, layout.is_digest)
                self._advance(1)
        for name in folders(self._mount, layout.CHECKPOINTS, self._place):
            yield from self._checkpoint(f"{layout.CHECKPOINTS}/{name}")
            self._advance(1)
        for name in folders(self._mount, layout.MODELS, self._place):
            yield from self._model(name)
            self._advance(1)

    def _checkpoint(self, folder: str) -> Iterator[dict[str, Any]]:
        yield from self._files(folder, lambda name: (layout.parse_claim(name) or "")[:1] == ("g",))
        for name in self._mount.names(folder):
            if (layout.parse_shard(name) or "")[:1] == ("s",):
                yield from self._files(
                    f"{folder}/{name}", lambda name: (layout.parse_claim(name) or "")[:1] == ("g",)
                )

    def _files(self, folder: str, wanted: Callable[[str], bool]) -> Iterator[dict[str, Any]]:
        try:
            for item in self._mount.scan(folder):
                if wanted(item.name) and (finding := self._file(folder, item.name)) is not None:
                    yield finding
        except (OSError, EfsStateError) as error:
            self.failed = True
            yield _finding(
                self._mount.path_of(folder), output.words(error), "look at its permissions"
            )

    def _file(self, folder: str, name: str) -> dict[str, Any] | None:
        path = self._mount.path_of(folder, name)
        try:
            found = store.read(self._mount, folder, name, with_stat=True).stat
        except FileNotFoundError:
            return None
        except UnknownFormatError as error:
            return _finding(path, str(error).removeprefix(f"{path}: "), "upgrade efsstate")
        except CorruptEntryError as error:
            self.checked += 1
            made = _finding(path, error.reason, "it is passed over for the one before it")
            if folder.startswith(f"{layout.CACHE}/"):
                try:
                    made["size"] = self._mount.stat(folder, name).st_size
                except OSError:
                    made["size"] = 0
                made |= {
                    "repairable": layout.is_digest(name),
                    "folder": folder,
                    "entry": name,
                    "do": "efsstate verify --repair",
                }
            return made
        except OSError as error:
            self.failed = True
            return _finding(path, error.strerror or str(error), "look at its permissions")
        self.checked += 1
        self.size += found.st_size
        return None

    def _model(self, name: str) -> Iterator[dict[str, Any]]:
        from efsstate.modelstore.versions import findings, versions

        where, model, root = (
            self._mount.path_of(layout.MODELS, name),
            layout.model_name(name),
            self._mount.path,
        )
        read = 0

        def progress(done: int, _total: int) -> None:
            nonlocal read
            read = done

        try:
            files = sum([one.files for one in versions(model, root=root)])
            for path, what, do in findings(model, root=root, progress=progress):
                yield _finding(path, what, do)
        except (LookupError, ValueError, NotImplementedError):
            return  # put there by hand: there is nothing to check it by
        except (OSError, EfsStateError) as error:
            self.failed = True
            yield _finding(where, output.words(error), "look at its permissions")
            return
        self.checked += files
        self.size += read


def _finding(where: str, what: str, do: str) -> dict[str, Any]:
    return {
        "level": "error",
        "where": where,
        "what": what,
        "do": do,
        "repairable": False,
        "size": 0,
    }
