"""`efsstate new`: make a small project that works at once."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import shutil
from typing import NamedTuple

import click

import efsstate
from efsstate.cli import output
from efsstate.cli.output import Output
from efsstate.deploy.template import render

_HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "projects")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,38}[a-z0-9]")


class Variant(NamedTuple):
    """A kind of project: its purpose in a sentence, its own files, and events to run it with."""

    about: str
    sources: dict[str, str]  # the file in the project, and where it comes from
    events: tuple[tuple[str, str], ...]  # a handler and its event


_SERVICE = "`src/app.py` is the service"
VARIANTS = {
    "cache": Variant(
        "A service whose answers are computed once for the whole fleet.",
        {"src/app.py": "cache/app.py", "tests/test_app.py": "cache/test_app.py"},
        (("app.handler", '{"text": "to be or not to be"}'),) * 2,
    ),
    "batch": Variant(
        "A batch that survives its timeout, and a service that tells how far it is.",
        {
            "src/app.py": "batch/app.py",
            "src/batch.py": "batch/batch.py",
            "tests/test_app.py": "batch/test_app.py",
            "tests/test_batch.py": "batch/test_batch.py",
        },
        (
            ("batch.handler", '{"job": "today", "items": 1000}'),
            ("app.handler", '{"job": "today"}'),
        ),
    ),
    "model": Variant(
        "A service with a model that is loaded once per environment.",
        {"src/app.py": "model/app.py", "tests/test_app.py": "model/test_app.py"},
        (("app.handler", '{"x": 3}'),),
    ),
    "training": Variant(
        "A service that collects examples, and a batch that trains on them.",
        {
            "src/app.py": "training/app.py",
            "src/batch.py": "training/batch.py",
            "tests/test_batch.py": "training/test_batch.py",
        },
        (
            ("app.handler", '{"id": "event-1", "x": 0.0, "y": 1.0}'),
            ("app.handler", '{"id": "event-2", "x": 1.0, "y": 3.0}'),
            ("batch.handler", '{"run": "run-1", "epochs": 100}'),
        ),
    ),
}
_SERVICE_AND_BATCH = Variant(
    "A service whose answers are computed once for the whole fleet, and a batch that survives its"
    " timeout.",
    {
        "src/app.py": "cache/app.py",
        "src/batch.py": "batch/batch.py",
        "tests/test_app.py": "cache/test_app.py",
        "tests/test_batch.py": "batch/test_batch.py",
    },
    (*VARIANTS["cache"].events, VARIANTS["batch"].events[0]),
)
_COMMON = {
    ".gitignore": "gitignore",
    "Makefile": "Makefile",
    "README.md": "README.md",
    "pyproject.toml": "pyproject.toml",
    "src/requirements.txt": "requirements.txt",
}
_PREPARE_MODEL = """with open(os.path.join(root, "line.json"), "w") as file:
    file.write('{"slope": 2, "offset": 1}')
publish("@name@", file.name, root=root)
"""


@click.command("new")
@click.argument("name")
@click.option("--cache", "kind", flag_value="cache", help="A service with a shared cache.")
@click.option("--batch", "kind", flag_value="batch", help="A batch that survives its timeout.")
@click.option("--model", "kind", flag_value="model", help="A service with a model.")
@click.option("--training", "kind", flag_value="training", help="Collect, train and publish.")
@click.option(
    "--wheel",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Take efsstate from this wheel, which is copied into the project.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(name: str, kind: str | None, wheel: str | None, as_json: bool) -> int:
    """Make a project in the new folder NAME: handlers, tests, template and Makefile.

    Without a variant it has a service and a batch. NAME has small letters, digits and hyphens.
    `make test`, `make run` and `make lint` work in it at once.
    """
    out = click.get_current_context().find_object(Output) or Output()
    out.json = out.json or as_json
    base = os.path.basename(os.path.abspath(name))
    if not _NAME.fullmatch(base) or "--" in base:
        raise click.UsageError(
            f"{base}: a name has 2 to 40 small letters, digits and single hyphens, and begins with"
            " a letter"
        )
    try:
        os.makedirs(name)
    except FileExistsError:
        raise click.UsageError(f"{name}: it exists; choose another name") from None
    variant = VARIANTS[kind] if kind else _SERVICE_AND_BATCH
    for path, text in _files(base, kind, variant, wheel).items():
        target = os.path.join(name, path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "w", encoding="utf-8") as file:
            file.write(text)
    if wheel is not None:
        os.makedirs(os.path.join(name, "wheels"))
        shutil.copy(wheel, os.path.join(name, "wheels"))
    out.say(f"{name}: {variant.about}\nNow: cd {shlex.quote(name)} && make test")
    if wheel is None and _is_installed_from_a_file():
        out.say(
            "This efsstate did not come from a package index; if `make test` finds none there,"
            " begin again with --wheel FILE."
        )
    files = sorted(os.path.relpath(os.path.join(top, file), name) for top, file in _walk(name))
    out.document("new", name=base, folder=os.path.abspath(name), variant=kind, files=files)
    return output.FINE


def _is_installed_from_a_file() -> bool:
    """Return True if pip recorded a folder or a wheel as the origin of this efsstate (PEP 610)."""
    try:
        distribution = importlib.metadata.distribution("efsstate")
    except importlib.metadata.PackageNotFoundError:
        return False
    return distribution.read_text("direct_url.json") is not None


def _walk(folder: str) -> list[tuple[str, str]]:
    return [(top, file) for top, _, files in os.walk(folder) for file in files]


def _files(name: str, kind: str | None, variant: Variant, wheel: str | None) -> dict[str, str]:
    """Return the text of each file of the project."""
    has_batch = "src/batch.py" in variant.sources
    values = {
        "name": name,
        "version": efsstate.__version__,
        "about": variant.about,
        "links": "--find-links wheels " if wheel else "",
        "files": f"{_SERVICE}, and `src/batch.py` the batch." if has_batch else f"{_SERVICE}.",
    }
    files = {path: _read(f"common/{source}") for path, source in _COMMON.items()}
    if wheel:
        files["src/requirements.txt"] = "--find-links ../wheels\n" + files["src/requirements.txt"]
    files |= {path: _read(source) for path, source in variant.sources.items()}
    events = "".join(f'    ("{handler}", {event}),\n' for handler, event in variant.events)
    run = _read("common/run.py").replace("@events@", events)
    run = run.replace("@prepare@", _PREPARE_MODEL if kind == "model" else "")
    run = run.replace("@imports@", "from efsstate import publish\n" if kind == "model" else "")
    files["run.py"] = run
    files = {path: _fill(text, values) for path, text in files.items()}
    files["template.yaml"] = render("sam", code="src")
    files["samconfig.toml"] = _sam_configuration(name, has_batch=has_batch)
    return files


def _sam_configuration(name: str, *, has_batch: bool) -> str:
    overrides = "" if has_batch else 'parameter_overrides = "WithBatchFunction=no"\n'
    return (
        'version = 0.1\n\n[default.deploy.parameters]\ncapabilities = "CAPABILITY_IAM"\n'
        f'stack_name = "{name}"\nresolve_s3 = true\n{overrides}'
    )


def _fill(text: str, values: dict[str, str]) -> str:
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text


def _read(path: str) -> str:
    with open(os.path.join(_HERE, f"{path}.in"), encoding="utf-8") as file:
        return file.read()
