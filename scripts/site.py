"""Add to the site what comes from the code, while MkDocs builds it: `make docs`.

It is a hook of mkdocs.yml. The home page is README.md, and pages outside of docs/ are added. The
reference has a page for each part of `efsstate.__all__`, made of the docstrings, one for the
command, made of its help, and one for each rule of the linter. A link to a file that is not on the
site becomes the file's name.
"""

from __future__ import annotations

import ast
import importlib
import os
import pathlib
import posixpath
import re
from typing import TYPE_CHECKING, Any

from efsstate.cli import schema
from efsstate.cli.app import COMMANDS
from efsstate.cli.app import efsstate as group

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Pages that lie elsewhere: the page on the site, and the file.
TAKEN_IN = {
    "index.md": "README.md",
    "security.md": "SECURITY.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "benchmarks.md": "benchmarks/README.md",
    "lab.md": "tests/nfs/README.md",
}


def _defined(place: str) -> Iterator[str]:
    """Yield the dotted names of the public classes and functions of a module, or of a folder's."""
    package = ROOT / "src" / "efsstate"
    path = package / place
    kinds = (ast.ClassDef, ast.FunctionDef)
    for file in sorted(path.glob("[a-z]*.py")) if path.is_dir() else [path]:
        module = ".".join(file.relative_to(package).with_suffix("").parts)
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, kinds) and node.name[0] != "_":
                yield f"{module}.{node.name}"


# The reference: page, title, what it says first, and what is on it: a module, or names of the
# package. A dotted name is of what a program gets and does not import.
REFERENCE = {
    "cache": (
        "Cache",
        "More in [Cache results](../cache.md).",
        [
            "cached",
            "Cache",
            "AsyncCache",
            "CachedFunction",
            "AsyncCachedFunction",
            "CacheInfo",
            "register",
        ],
    ),
    "checkpoint": (
        "Checkpoint",
        "More in [Run long jobs](../checkpoints.md).",
        [
            "checkpoint",
            "Checkpoint",
            "checkpoints.shards.Shards",
            "checkpoints.checkpoint.Shard",
            "checkpoints.shards.Progress",
        ],
    ),
    "model": (
        "Models",
        "More in [Serve models](../models.md).",
        [
            "model",
            "Model",
            "publish",
            "activate",
            "rollback",
            "models",
            "versions",
            "verify",
            "prune",
            "remove",
            "modelstore.catalog.Version",
            "modelstore.model_files.ModelFiles",
        ],
    ),
    "dataset": (
        "Datasets",
        "More in [Share training data](../datasets.md).",
        ["dataset", "Dataset", "Part", "Snapshot"],
    ),
    "invocation": (
        "Invocation, sweep, events, doctor",
        "What concerns a function as a whole.",
        [
            "invocation",
            "current",
            "deadline.Invocation",
            "on_event",
            "sweep",
            "SweepReport",
            "doctor",
            "deploy.findings.Finding",
        ],
    ),
    "errors": (
        "Errors",
        "Every error says what happened, where, why, and what to do.",
        [
            "EfsStateError",
            "ClaimLost",
            "ClaimedError",
            "CorruptEntryError",
            "DeadlineExceeded",
            "EncodeError",
            "ModelNotFound",
            "NotClaimed",
            "PartRemoved",
            "RootError",
            "ShardsError",
            "SignatureError",
            "SnapshotNotFound",
            "SourceChanged",
            "UnknownFormatError",
            "errors.MountTimeout",
            "errors.UnstableError",
            "errors.ForeignFilesError",
            "errors.TemplateError",
            "errors.AccountError",
        ],
    ),
    "adapters": (
        "efsstate.adapters",
        "More in [Plug into frameworks](../adapters.md).",
        list(_defined("adapters")),
    ),
    "testing": ("efsstate.testing", "More in [Test your functions](../testing.md).", "testing"),
    "plugin": (
        "The pytest plugin",
        "They are there once efsstate is installed. More in [Test your functions](../testing.md).",
        list(_defined("testing/plugin.py")),
    ),
    "metrics": ("efsstate.metrics", "More in [Observe](../observability.md).", "metrics"),
}
HANDLERS = ("janitor", "ops", "publisher", "workers", "worker")
EVENT_SECTIONS = ("\n### The metrics\n", "\n## Events\n", "\n## Logs\n")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def generated() -> Iterator[tuple[str, str, str]]:
    """Yield (page, title, text) of each page that is made of code."""
    for page, (title, first, names) in REFERENCE.items():
        yield f"reference/{page}.md", title, f"# {title}\n\n{first}\n\n{''.join(_objects(names))}"
    handlers = "".join(f"::: efsstate.{name}\n\n" for name in HANDLERS)
    text = f"# Handlers\n\nFunctions that a stack deploys as they are.\n\n{handlers}"
    yield "reference/handlers.md", "Handlers", text
    yield "reference/command.md", "The command", _command()
    yield "reference/json.md", "Output for programs", _documents()
    yield "reference/lint.md", "Rules of the linter", _rules()
    yield "reference/events.md", "Metrics, events and logs", _events()


def _objects(names: list[str] | str) -> Iterator[str]:
    """Yield the lines that have mkdocstrings describe objects, where they are defined."""
    package = "efsstate" if isinstance(names, list) else f"efsstate.{names}"
    module = importlib.import_module(package)
    if not isinstance(names, list):
        yield f"{module.__doc__}\n\n"
        names = getattr(module, "__all__", None) or [
            name for name, value in vars(module).items() if _is_function_of(value, package)
        ]
    for name in names:
        if "." in name:
            yield f"::: {package}.{name}\n\n"
            continue
        value = getattr(module, name)
        where = getattr(value, "__module__", package)
        defined = value.__qualname__ if hasattr(value, "__qualname__") else name
        yield f"::: {where}.{defined}\n\n"


def _is_function_of(value: object, package: str) -> bool:
    name = getattr(value, "__name__", "_")
    return callable(value) and name[0] != "_" and getattr(value, "__module__", "") == package


def _command() -> str:
    """Return the page of the command: the help of each, and of those inside."""
    import click

    parts = ["# The command\n\nMore in [the command in use](../cli.md).\n"]

    def add(command: click.Command, words: list[str], parent: click.Context | None) -> None:
        context = click.Context(command, info_name=words[-1], parent=parent, max_content_width=90)
        parts.append(f"\n{'#' * min(len(words) + 1, 4)} {' '.join(words)}\n")
        parts.append(f"\n```text\n{command.get_help(context)}\n```\n")
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                if inner is not None and (words != ["efsstate"] or name in COMMANDS):
                    add(inner, [*words, name], context)

    add(group, ["efsstate"], None)
    return "".join(parts)


def _documents() -> str:
    """Return the page of the documents that `--json` prints: a table of fields for each."""
    first = (
        "# Output for programs\n\nEach command prints one document with `--json`. `efsstate schema`"
        " prints these tables as JSON Schema (2020-12). A release may add fields; `version` is"
        " raised when a field changes its meaning or goes. `efsstate.ops.handler` adds `exit`, the"
        " exit code. More in [the command in use](../cli.md#for-programs).\n"
    )
    lines = [first]
    definitions = schema.whole()["$defs"]
    for name in schema.names():
        lines.append(f"\n## efsstate.{name}\n\n{definitions[name]['description'].rstrip('.')}.\n")
        lines += ["\n| field | type | meaning |\n|---|---|---|\n", *_fields(definitions[name])]
    return "".join(lines)


def _fields(part: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yield a row for each field of a part of the schema, and for those inside."""
    for name, field in part.get("properties", {}).items():
        if not path and name in ("schema", "version", "exit"):
            continue
        inner, kind = _kind(field)
        text = field.get("description") or inner.get("description", "A row each.")
        text = re.sub(r"([|<{}])", r"\\\1", text)
        yield f"| `{path}{name}` | {kind} | {text} |\n"
        inside = f"{path}{name}.NAME." if "by name" in kind else f"{path}{name}."
        yield from _fields(inner, inside)


def _kind(field: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the schema that has the fields inside `field`, and its type in words."""
    definition = schema.whole()["$defs"].get(field.get("$ref", "").rpartition("/")[2])
    if definition is not None:
        return definition, definition.get("title") or "object"
    for each in field.get("anyOf", []):
        if each != {"type": "null"}:
            inner, kind = _kind(each)
            return inner, f"{kind} or null"
    if field.get("type") == "array" and isinstance(field["items"], dict):
        inner, kind = _kind(field["items"])
        return inner, f"list: {kind}"
    if "prefixItems" in field:
        return {}, "[" + ", ".join(_kind(each)[1] for each in field["prefixItems"]) + "]"
    if isinstance(field.get("additionalProperties"), dict):
        inner, kind = _kind(field["additionalProperties"])
        return inner, f"object: {kind} by name"
    if "enum" in field:
        return {}, ", ".join("null" if value is None else f"`{value}`" for value in field["enum"])
    kinds = field.get("type", "any")
    return field, kinds if isinstance(kinds, str) else " or ".join(kinds)


def _events() -> str:
    """Return the page of the metrics, events and log records: the tables of observability.md."""
    text = (ROOT / "docs" / "observability.md").read_text()
    first = "# Metrics, events and logs\n\nMore in [Observe](../observability.md).\n"
    sections = [text.partition(start)[2].partition("\n## ")[0] for start in EVENT_SECTIONS]
    titles = [start.strip("#\n ") for start in EVENT_SECTIONS]
    body = "".join(f"\n## {t}\n{s}\n" for t, s in zip(titles, sections, strict=True))
    return first + re.sub(r"\]\((?![a-z]+:|#)", "](../", body)


def _rules() -> str:
    """Return the page with the titles of all rules, each a link to its own page."""
    lines = ["# Rules of the linter\n\n`efsstate lint` reports these.\n\n"]
    for path in sorted((ROOT / "docs" / "lint").glob("EFS*.md")):
        title = path.read_text().split("\n", 1)[0].removeprefix("# ")
        lines.append(f"- [{title}](../lint/{path.name})\n")
    return "".join(lines)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and the reference to the navigation."""
    from mkdocs.structure.files import File

    pages: list[dict[str, str]] = []
    for page, title, text in generated():
        files.append(File.generated(config, page, content=text))
        pages.append({title: page})
    pages += [{"The command in use": "cli.md"}, {"The format on the mount": "format.md"}]
    pages += [{"Facts about AWS": "aws-facts.md"}]
    for page, path in TAKEN_IN.items():
        files.append(File.generated(config, page, content=(ROOT / path).read_text()))
    for section in config.nav:
        if "Reference" in section:
            section["Reference"] = pages
        if "Explanation" in section:
            section["Explanation"].append({"The NFS lab's own page": "lab.md"})
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Have each link lead to a page of the site; name the file of one that is not there."""
    uri = page.file.src_uri
    origin = TAKEN_IN.get(uri, f"docs/{uri}")
    if uri.startswith("reference/"):
        return markdown
    places = {path: name for name, path in TAKEN_IN.items()}

    def replace(match: re.Match[str]) -> str:
        mark, text, target = match.groups()
        path, hash_mark, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", target):
            return match[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
        known = places.get(file) or file.removeprefix("docs/")
        if files.get_file_from_path(known) is None:
            return f"{text} (`{file}`)" if file not in text else text
        relative = os.path.relpath(known, posixpath.dirname(uri) or ".")
        return f"{mark}[{text}]({relative}{hash_mark}{anchor})"

    parts = re.split(r"(^```.*?^```)", markdown, flags=re.MULTILINE | re.DOTALL)
    parts[::2] = [_LINK.sub(replace, part) for part in parts[::2]]
    return "".join(parts)
