"""`efsstate model`: publish, list, activate, verify and prune models."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import click

from efsstate.cli import output
from efsstate.errors import EfsStateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@click.group()
def command() -> None:
    """Publish, activate, list, check and prune models."""


@command.command()
@click.argument("name")
@click.argument("source", type=click.Path(exists=True))
@click.option("--version", metavar="ID", help="The version's id; else it follows from the content.")
@click.option(
    "--no-activate", is_flag=True, help="Publish it, and go on serving the active version."
)
@output.common
def publish(
    out: output.Output,
    root: str | None,
    name: str,
    source: str,
    version: str | None,
    no_activate: bool,
) -> int:
    """Make a version of model NAME from the file or folder SOURCE, and activate it.

    The same content is one version. What was interrupted goes on where it was when it is started again.
    """
    from efsstate.modelstore import versions

    with _bar(out, f"publishing {name}") as progress:
        made = _usage(
            versions.publish,
            name,
            source,
            version=version,
            activate=not no_activate,
            root=root,
            progress=progress,
        )
    active = not no_activate or made in [
        one.id for one in versions.versions(name, root=root) if one.active
    ]
    out.say(f"{name} {made} {'is active' if active else 'published'}")
    out.document("model.publish", name=name, id=made, active=active)
    return output.FINE


@command.command(name="list")
@click.argument("name", required=False)
@output.common
def list_(out: output.Output, root: str | None, name: str | None) -> int:
    """List the versions of model NAME; without it, of every model."""
    from efsstate.modelstore import versions
    from efsstate.mount import clock

    names = [name] if name is not None else versions.models(root=root)
    rows: list[list[Any]] = []
    entries: list[dict[str, Any]] = []
    problems: list[str] = []
    for each in names:
        try:
            found = _usage(versions.versions, each, root=root)
        except LookupError:
            if name is not None:
                raise
            plain = versions.is_unmanaged(each, root=root)
            rows.append([each, "-", "put there by hand" if plain else "no version", "-", "-", "-"])
            entries.append({"name": each, "id": None, "state": "plain" if plain else "no version"})
            continue
        except (
            OSError,
            EfsStateError,
        ) as error:  # one that can't be looked at must not hide the others
            if name is not None:
                raise
            problems.append(output.words(error))
            continue
        for one in found:
            state = "damaged" if one.problem else "active" if one.active else "inactive"
            age = output.age_text(clock.now() - one.changed)
            rows.append([each, one.id, state, output.bytes_text(one.bytes), str(one.files), age])
            fields = ("id", "active", "bytes", "files", "changed", "problem")
            entries.append(
                {"name": each, "state": state, **{field: getattr(one, field) for field in fields}}
            )
    strangers = versions.strangers(root=root) if name is None else []
    rows += [[os.path.basename(path), "-", "not a model", "-", "-", "-"] for path in strangers]
    out.table(["model", "version", "state", "size>", "files>", "changed>"], rows)
    out.problems(problems)
    out.document("model.list", versions=entries, strangers=strangers, problems=problems)
    return output.COULD_NOT_CHECK if problems else output.FINE


@command.command()
@click.argument("name")
@click.argument("version")
@output.common
def activate(out: output.Output, root: str | None, name: str, version: str) -> int:
    """Serve VERSION of model NAME from now on: also how to roll back."""
    from efsstate.modelstore import versions

    _usage(versions.activate, name, version, root=root)
    out.say(f"{name} {version} is active")
    out.document("model.activate", name=name, id=version)
    return output.FINE


@command.command()
@click.argument("name")
@output.common
def verify(out: output.Output, root: str | None, name: str) -> int:
    """Read every byte of every version of model NAME, and compare it with what was published."""
    from efsstate.modelstore import versions

    with _bar(out, f"verifying {name}") as progress:
        wrong = _usage(versions.findings, name, root=root, progress=progress)
    findings = [
        {"level": "error", "where": where, "what": what, "do": do} for where, what, do in wrong
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
    help="How many stay, the active one too.",
)
@click.option(
    "--grace", default="24h", show_default=True, help="How long one must have been inactive."
)
@output.deleting
@output.common
def prune(
    out: output.Output, root: str | None, consent: output.Consent, name: str, keep: int, grace: str
) -> int:
    """Remove the versions of model NAME that nobody can be using any more, and what killed publications left."""
    from efsstate.modelstore import versions

    spare = _usage(versions.prune, name, keep=keep, grace=grace, dry_run=True, root=root)
    left = versions.leftovers(name, grace=grace, root=root)
    gone: list[str] = []
    cleared: list[str] = []
    if not spare and not left:
        out.say(f"{name}: nothing to remove")
    elif consent(f"from {name}: {_these(spare, left)}"):
        gone = versions.prune(name, keep=keep, grace=grace, root=root)
        cleared = [path for path in left if not os.path.lexists(path)]
        out.say(f"{name}: removed {_these(gone, cleared)}")
    elif consent.dry_run:
        out.say(f"{name}: would remove {_these(spare, left)}")
    fields = {"removed": gone, "removed_leftovers": cleared, "found": spare, "leftovers": left}
    out.document("model.prune", name=name, dry_run=consent.dry_run, **fields)
    return output.FINE


def _these(ids: list[str], left: list[str]) -> str:
    return (
        ", ".join([*ids, *[f"{os.path.basename(path)} (left by a publication)" for path in left]])
        or "nothing"
    )


def _usage(function: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """A name, id or duration that can't be one is a mistake in the command line."""
    try:
        return function(*given, **named)
    except EfsStateError:
        raise
    except ValueError as error:
        raise click.UsageError(str(error)) from None


@contextlib.contextmanager
def _bar(out: output.Output, what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for what reports (done, total) in bytes, shown as percent."""
    shown = 0
    with out.progress(what, total=100) as advance:

        def progress(done: int, total: int) -> None:
            nonlocal shown
            percent = 100 * done // max(1, total)
            if percent > shown:
                advance(percent - shown)
                shown = percent

        yield progress
