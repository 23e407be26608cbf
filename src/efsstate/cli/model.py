"""`efsstate model`: publish, list, activate, roll back, verify, prune and remove models."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import click

from efsstate.cli import completion, output
from efsstate.cli.output import Consent, Output
from efsstate.errors import EfsStateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FIELDS = (
    "id",
    "active",
    "labels",
    "share",
    "users",
    "bytes",
    "files",
    "changed",
    "meta",
    "problem",
)
_LABEL = click.option("--label", metavar="NAME", help="Under this label, instead of by default.")


@click.group(cls=output.Group)
def command() -> None:
    """Publish, activate, list, check, prune and remove models."""


@command.command()
@click.argument("name", shell_complete=completion.model_name)
@click.argument("source", type=click.Path(exists=True), required=False)
@click.option("--hub", metavar="REPO", help="Publish org/name@revision of the Hugging Face hub.")
@click.option("--version", metavar="ID", help="The version's id; else it follows from the content.")
@click.option("--no-activate", is_flag=True, help="Publish, but keep serving the active version.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Publish only these files.")
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Leave these files out too, besides .git, .cache/huggingface and the like.",
)
@output.common
def publish(
    out: Output,
    root: str | None,
    name: str,
    source: str | None,
    hub: str | None,
    version: str | None,
    no_activate: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
) -> int:
    """Publish the file or folder SOURCE as a version of model NAME, and activate it.

    With --hub, publish a repository of the Hugging Face hub in its place.
    The same content is one version. An interrupted publication resumes when it is started again.
    """
    from efsstate.modelstore import versions
    from efsstate.modelstore.patterns import DEFAULT_EXCLUDE

    if (source is None) == (hub is None):
        raise click.UsageError("pass either SOURCE or --hub")
    with _bar(out, f"publishing {name}") as progress:
        version_id = _usage(
            versions.publish,
            name,
            source,
            hub=hub,
            version=version,
            activate=not no_activate,
            include=include or None,
            exclude=(*DEFAULT_EXCLUDE, *exclude),
            root=root,
            progress=progress,
        )
    listed = versions.versions(name, root=root)
    is_active = any(each.active and each.id == version_id for each in listed)
    out.say(f"{name} {version_id} {'is active' if is_active else 'published'}")
    out.document("model.publish", name=name, id=version_id, active=is_active)
    return output.FINE


@command.command(name="list")
@click.argument("name", required=False, shell_complete=completion.model_name)
@output.common
def list_(out: Output, root: str | None, name: str | None) -> int:
    """List the versions of model NAME; without NAME, of every model."""
    from efsstate.modelstore import versions
    from efsstate.mount.root import require_present

    require_present(root)
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
            rows.append([model, "-", state, *["-"] * 5])
            entries.append({"name": model, "id": None, "state": state})
        except (OSError, EfsStateError) as error:
            if name is not None:
                raise
            problems.append(output.words(error))  # the other models are listed all the same
    strangers = versions.strangers(root=root) if name is None else []
    rows += [[os.path.basename(path), "-", "not a model", *["-"] * 5] for path in strangers]
    out.table(
        ["model", "version", "state", "labels", "used by", "size>", "files>", "changed>"], rows
    )
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
        if 0 < version.share < 1:
            state = f"{state if version.active else 'canary'}, {version.share:.0%}"
        state = "damaged" if version.problem else state
        labels = ", ".join(version.labels) or "-"
        users = ", ".join(version.users) or "-"
        age = output.age_text(clock.now() - version.changed)
        size = output.bytes_text(version.bytes)
        rows.append([model, version.id, state, labels, users, size, str(version.files), age])
        fields = {field: getattr(version, field) for field in _FIELDS}
        entries.append({"name": model, "state": state, **fields})


@command.command()
@click.argument("name", shell_complete=completion.model_name)
@click.argument("version")
@_LABEL
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    metavar="PART",
    help="For this part of the environments, e.g. 0.1, beside the active version.",
)
@output.common
def activate(
    out: Output, root: str | None, name: str, version: str, label: str | None, share: float
) -> int:
    """Serve VERSION of model NAME from now on; an older one rolls back.

    The id may be abbreviated.
    """
    from efsstate.modelstore import versions

    version = _full_id(name, version, root)
    _usage(versions.activate, name, version, label=label, share=share, root=root)
    for each in versions.versions(name, root=root) if share < 1 else ():
        is_active = each.active if label is None else label in each.labels
        if each.id == version and is_active:
            share = 1.0  # the active version is beside no other
    out.say(f"{name} {version} is active{_scope(label, share)}")
    out.document("model.activate", name=name, id=version, label=label, share=share)
    return output.FINE


@command.command()
@click.argument("name", shell_complete=completion.model_name)
@_LABEL
@output.common
def rollback(out: Output, root: str | None, name: str, label: str | None) -> int:
    """Serve the version of model NAME that was active before; end a canary if there is one."""
    from efsstate.modelstore import versions

    version = _usage(versions.rollback, name, label=label, root=root)
    out.say(f"{name} {version} is active{_scope(label, 1.0)}")
    out.document("model.rollback", name=name, id=version, label=label)
    return output.FINE


def _scope(label: str | None, share: float) -> str:
    under = f" under {label}" if label else ""
    return under + (f" for {share:.0%} of the environments" if share < 1 else "")


def _full_id(name: str, version: str, root: str | None) -> str:
    """Return the id that `version` abbreviates; `version` itself if it is none, or an id."""
    from efsstate.modelstore import versions

    try:
        ids: list[str] = [each.id for each in _usage(versions.versions, name, root=root)]
    except LookupError:
        return version  # the command says why
    matches = [each for each in ids if version and each.startswith(version)]
    if version in ids or not matches:
        return version
    if len(matches) > 1:
        raise click.UsageError(f"version {version!r} is ambiguous: {', '.join(matches)}")
    return matches[0]


@command.command()
@click.argument("name", shell_complete=completion.model_name)
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
@click.argument("name", shell_complete=completion.model_name)
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

    spare, foreign = _usage(
        versions.prune_own, name, keep=keep, grace=grace, dry_run=True, root=root
    )
    leftovers = versions.leftovers(name, grace=grace, root=root)
    removed: list[str] = []
    cleared: list[str] = []
    if not spare and not leftovers:
        out.say(f"{name}: nothing to remove")
    elif consent(f"from {name}: {_list(spare, leftovers)}"):
        removed, foreign = versions.prune_own(
            name, keep=keep, grace=grace, dry_run=False, root=root
        )
        cleared = [path for path in leftovers if not os.path.lexists(path)]
        out.say(f"{name}: removed {_list(removed, cleared)}")
    elif consent.dry_run:
        out.say(f"{name}: would remove {_list(spare, leftovers)}")
    fields = {"removed": removed, "removed_leftovers": cleared}
    for path in foreign:
        out.say(f"not removed, because it is not efsstate's: {path}")
    fields |= {"found": spare, "leftovers": leftovers, "foreign": foreign}
    out.document("model.prune", name=name, dry_run=consent.dry_run, **fields)
    return output.FINE


@command.command()
@click.argument("name", shell_complete=completion.model_name)
@click.option(
    "--grace",
    type=output.DURATION,
    default="24h",
    show_default=True,
    metavar="TIME",
    help="Keep the files of versions that were active within this time, for who still reads them.",
)
@output.deleting
@output.common
def rm(out: Output, root: str | None, consent: Consent, name: str, grace: float) -> int:
    """Remove model NAME: it cannot be loaded from then on, and its versions go after the grace."""
    from efsstate.modelstore import versions

    listed = [each.id for each in _usage(versions.versions, name, root=root)]
    spare = versions.remove(name, grace=grace, dry_run=True, root=root)
    later = [version for version in listed if version not in spare]
    removed: list[str] = []
    what = f"model {name}: at once {_list(spare, [])}, after the grace {_list(later, [])}"
    if consent(what):
        removed = versions.remove(name, grace=grace, root=root)
        later = [version for version in listed if version not in removed]
        out.say(f"{name} is removed; a sweep takes after the grace: {_list(later, [])}")
    elif consent.dry_run:
        out.say(f"would remove {what}")
    fields = {"removed": removed, "found": spare, "later": later}
    out.document("model.rm", name=name, dry_run=consent.dry_run, **fields)
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
