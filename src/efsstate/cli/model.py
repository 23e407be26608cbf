"""`efsstate model`: publish, list, activate, verify and prune models."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import click

from efsstate.cli import output
from efsstate.cli.output import Consent, Output
from efsstate.errors import EfsStateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FIELDS = ("id", "active", "bytes", "files", "changed", "problem")


@click.group(cls=output.Group)
def command() -> None:
    """Publish, activate, list, check and prune models."""


@command.command()
@click.argument("name")
@click.argument("source", type=click.Path(exists=True))
@click.option("--version", metavar="ID", help="The version's id; else it follows from the content.")
@click.option("--no-activate", is_flag=True, help="Publish, but keep serving the active version.")
@output.common
def publish(
    out: Output, root: str | None, name: str, source: str, version: str | None, no_activate: bool
) -> int:
    """Publish the file or folder SOURCE as a version of model NAME, and activate it.

    The same content is one version. An interrupted publication resumes when it is started again.
    """
    from efsstate.modelstore import versions

    with _bar(out, f"publishing {name}") as progress:
        version_id = _usage(
            versions.publish,
            name,
            source,
            version=version,
            activate=not no_activate,
            root=root,
            progress=progress,
        )
    listed = versions.versions(name, root=root)
    is_active = any(each.active and each.id == version_id for each in listed)
    out.say(f"{name} {version_id} {'is active' if is_active else 'published'}")
    out.document("model.publish", name=name, id=version_id, active=is_active)
    return output.FINE


@command.command(name="list")
@click.argument("name", required=False)
@output.common
def list_(out: Output, root: str | None, name: str | None) -> int:
    """List the versions of model NAME; without NAME, of every model."""
    from efsstate.modelstore import versions

    rows: list[list[Any]] = []
    entries: list[dict[str, Any]] = []
    problems: list[str] = []
    for model in [name] if name is not None else versions.models(root=root):
        try:
            _add_versions(model, root, rows, entries)
        except LookupError:
            if name is not None:
                raise
            is_unmanaged = versions.is_unmanaged(model, root=root)
            state = "unmanaged" if is_unmanaged else "no version"
            rows.append([model, "-", state, "-", "-", "-"])
            entries.append({"name": model, "id": None, "state": state})
        except (OSError, EfsStateError) as error:
            if name is not None:
                raise
            problems.append(output.words(error))  # the other models are listed all the same
    strangers = versions.strangers(root=root) if name is None else []
    rows += [[os.path.basename(path), "-", "not a model", "-", "-", "-"] for path in strangers]
    out.table(["model", "version", "state", "size>", "files>", "changed>"], rows)
    out.problems(problems)
    out.document("model.list", versions=entries, strangers=strangers, problems=problems)
    return output.COULD_NOT_CHECK if problems else output.FINE


def _add_versions(
    model: str, root: str | None, rows: list[list[Any]], entries: list[dict[str, Any]]
) -> None:
    from efsstate.modelstore import versions
    from efsstate.mount import clock

    for version in _usage(versions.versions, model, root=root):
        state = "active" if version.active else "inactive"
        state = "damaged" if version.problem else state
        age = output.age_text(clock.now() - version.changed)
        size = output.bytes_text(version.bytes)
        rows.append([model, version.id, state, size, str(version.files), age])
        fields = {field: getattr(version, field) for field in _FIELDS}
        entries.append({"name": model, "state": state, **fields})


@command.command()
@click.argument("name")
@click.argument("version")
@output.common
def activate(out: Output, root: str | None, name: str, version: str) -> int:
    """Serve VERSION of model NAME from now on; an older one rolls back."""
    from efsstate.modelstore import versions

    _usage(versions.activate, name, version, root=root)
    out.say(f"{name} {version} is active")
    out.document("model.activate", name=name, id=version)
    return output.FINE


@command.command()
@click.argument("name")
@output.common
def verify(out: Output, root: str | None, name: str) -> int:
    """Read every byte of every version of model NAME, and compare it with its publication."""
    from efsstate.modelstore import versions

    with _bar(out, f"verifying {name}") as progress:
        faults = _usage(versions.findings, name, root=root, progress=progress)
    findings = [
        {"level": "error", "where": where, "what": what, "do": do} for where, what, do in faults
    ]
    code = out.findings(findings)
    if not findings:
        out.say(f"{name}: every byte is as published")
    out.document("model.verify", name=name, findings=findings)
    return code


@command.command()
@click.argument("name")
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    metavar="N",
    help="Keep N versions, the active one included.",
)
@click.option(
    "--grace",
    type=output.DURATION,
    default="24h",
    show_default=True,
    metavar="TIME",
    help="Keep versions that were active within this time.",
)
@output.deleting
@output.common
def prune(
    out: Output, root: str | None, consent: Consent, name: str, keep: int, grace: float
) -> int:
    """Remove versions of model NAME that no function can be using, and rests of publications."""
    from efsstate.modelstore import versions

    spare = _usage(versions.prune, name, keep=keep, grace=grace, dry_run=True, root=root)
    leftovers = versions.leftovers(name, grace=grace, root=root)
    removed: list[str] = []
    cleared: list[str] = []
    if not spare and not leftovers:
        out.say(f"{name}: nothing to remove")
    elif consent(f"from {name}: {_list(spare, leftovers)}"):
        removed = versions.prune(name, keep=keep, grace=grace, root=root)
        cleared = [path for path in leftovers if not os.path.lexists(path)]
        out.say(f"{name}: removed {_list(removed, cleared)}")
    elif consent.dry_run:
        out.say(f"{name}: would remove {_list(spare, leftovers)}")
    fields = {"removed": removed, "removed_leftovers": cleared}
    fields |= {"found": spare, "leftovers": leftovers}
    out.document("model.prune", name=name, dry_run=consent.dry_run, **fields)
    return output.FINE


def _list(ids: list[str], leftovers: list[str]) -> str:
    rests = [f"{os.path.basename(path)} (left by a publication)" for path in leftovers]
    return ", ".join([*ids, *rests]) or "nothing"


def _usage(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call `function`; a name, id or duration that cannot be one is a usage error."""
    try:
        return function(*args, **options)
    except EfsStateError:
        raise
    except ValueError as error:
        raise click.UsageError(str(error)) from None


@contextlib.contextmanager
def _bar(out: Output, what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar; yields a function of (bytes done, bytes in all)."""
    shown = 0
    with out.progress(what, total=100) as advance:

        def note_progress(done: int, total: int) -> None:
            nonlocal shown
            percent = 100 * done // max(1, total)
            if percent > shown:
                advance(percent - shown)
                shown = percent

        yield note_progress
