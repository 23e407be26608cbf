"""The published schema: of every document, of each field, and true of what is printed."""

import json
import pathlib
import re

import pytest
from jsonschema import Draft202012Validator
from tests.documents import check

import efsstate
from efsstate import Cache, checkpoint
from efsstate.cli import app, schema

SOURCES = pathlib.Path(efsstate.__file__).parent / "cli"
KEPT = pathlib.Path(__file__).parents[1] / "compat" / "documents-1.txt"
# Lines that print each document, in their order, over the root that conftest.py fills.
LOOKS = {
    "ls": ["ls", "ls cache", "ls cache/thumbnails", "ls checkpoints/jobs", "ls models/resnet50"],
    "stat": ["stat", "stat models"],
    "show": ["show ENTRY", "show models/resnet50/versions/VERSION"],
    "verify": ["verify", "verify cache/pricing"],
    "report": ["report", "report --force --events EVENTS --plan WORKLOAD"],
    "rm": ["rm cache/pricing --dry-run", "rm cache/pricing -y"],
    "gc": ["gc --dry-run", "gc --max-bytes 1KiB -y"],
    "error": ["ls nonsense", "show cache/thumbnails/0/" + "0" * 48, "gc --max-bytes many"],
}
JOBS = {
    "checkpoint.ls": ["checkpoint ls", "checkpoint ls --filter state=claimed"],
    "checkpoint.show": ["checkpoint show backfill --state", "show checkpoints/jobs"],
    "checkpoint.break": ["checkpoint break backfill --dry-run", "checkpoint break backfill -y"],
    "checkpoint.rebase": ["checkpoint rebase --all --dry-run", "checkpoint rebase jobs -y"],
    "checkpoint.reset": ["checkpoint reset backfill -y"],
    "checkpoint.finish": ["checkpoint finish backfill -y"],
    "checkpoint.cancel": ["checkpoint cancel backfill --dry-run"],
}
MODELS = {
    "model.publish": ["model publish twice FILE", "model publish twice OTHER"],
    "model.list": ["model list", "model list resnet50"],
    "model.activate": ["model activate resnet50 VERSION"],
    "model.rollback": ["model rollback twice"],
    "model.verify": ["model verify resnet50"],
    "model.prune": ["model prune resnet50 --dry-run", "model prune resnet50 -y"],
    "model.rm": ["model rm resnet50 --dry-run", "model rm resnet50 -y"],
    "dataset.ls": ["dataset ls"],
    "dataset.show": ["dataset show reviews/raw", "dataset show reviews/raw run-7"],
    "dataset.freeze": ["dataset freeze reviews/raw run-8"],
    "dataset.verify": ["dataset verify reviews/raw run-7"],
    "dataset.rm": ["dataset rm reviews/raw --key event-1 -y"],
}
OTHERS = {
    "new": ["new shop", "new shop-2 --batch"],
    "template": ["template sam", "template sam -o template.yaml"],
    "lint": ["lint TEMPLATE", "lint template.yaml"],
    "code": ["lint --explain EFS001"],
    "error-explained": ["doctor --error EFSMountFailureException"],
    "plan": [
        "plan --stored 1GiB",
        "plan --stored 1GiB --model 1GiB --environments 9 --force --save WORKLOAD",
    ],
    "schema": ["schema", "schema checkpoint ls"],
}
GROUPS = {"looks": LOOKS, "jobs": JOBS, "models": MODELS, "others": OTHERS}
LINES = LOOKS | JOBS | MODELS | OTHERS
# These need an account or are printed for no other command: tests/deploy and tests/planning have
# them, and check them in the same way.
ELSEWHERE = {"doctor", "text"}
EMPTY = ["ls", "ls cache", "stat", "gc --dry-run", "gc -y", "verify", "checkpoint ls", "model list"]
EMPTY += ["checkpoint rebase --all -y", "dataset ls", "report"]


EVENTS = [
    {"kind": "cache", "event": "hit", "name": "a", "level": "mount", "seconds": 0.1, "time": 5},
    {"kind": "cache", "event": "miss", "name": "a", "seconds": 0.1, "time": 9},
    {"kind": "sweep", "event": "sweep", "removed": 3, "reasons": {"old": 3}, "time": 9},
]


@pytest.fixture
def words(shell, tmp_path, monkeypatch):
    """Return the words of a line, with a file or a name of the root in place of each capital."""
    monkeypatch.chdir(tmp_path)
    root = pathlib.Path(shell.tree.path)
    with checkpoint("jobs", root=root).shards(3) as shards:
        next(iter(shards)).finish(1)
    (tmp_path / "one.bin").write_bytes(b"1")
    (tmp_path / "two.bin").write_bytes(b"2")
    (tmp_path / "events.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in EVENTS))
    (tmp_path / "work.toml").write_text('stored = "10GiB"\n')
    (tmp_path / "bad.yaml").write_text("Resources: {F: {Type: AWS::Lambda::Function}}")
    versions = root / "models" / "resnet50" / "versions"  # and CURRENT, a link to nothing
    version = min(path.name for path in versions.iterdir() if path.is_dir())
    places = {"ENTRY": str(min((root / "cache" / "pricing").glob("?/*"))), "VERSION": version}
    places |= {"FILE": "one.bin", "OTHER": "two.bin", "TEMPLATE": "bad.yaml"}
    places |= {"EVENTS": "events.jsonl", "WORKLOAD": "work.toml"}

    def fill(line):
        for name, value in places.items():
            line = line.replace(name, value)
        return line.split()

    return fill


def printed(shell, line):
    """Return the document that a command line prints, checked."""
    _, out, err = shell(*line, "--json")
    assert err == ""
    return check(out)


def test_it_is_a_schema_and_says_what_each_document_is_of():
    Draft202012Validator.check_schema(schema.whole())
    assert all(schema.of(name)["description"] for name in schema.names())


@pytest.mark.parametrize("group", GROUPS)
def test_each_command_prints_what_its_schema_says(shell, words, group):
    for name, lines in GROUPS[group].items():
        for line in lines:
            document = printed(shell, words(line))
            assert document["schema"] == f"efsstate.{name}", document
            Draft202012Validator(schema.whole()).validate(document)


@pytest.mark.parametrize("line", EMPTY)
def test_an_empty_root_has_documents_too(tmp_path, monkeypatch, capfd, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root").mkdir()
    code = app.run([*line.split(), "--root", str(tmp_path / "root"), "--json"])
    document = check(capfd.readouterr().out)
    assert code == 0 and document["schema"] != "efsstate.error"


def test_every_document_of_the_code_has_a_schema_and_a_command():
    """A document that is printed under a name that no schema has would be one without a schema."""
    pattern = r'\.document\(\s*"([\w.-]+)"'
    named = {
        name for path in SOURCES.glob("*.py") for name in re.findall(pattern, path.read_text())
    }
    named |= {f"checkpoint.{verb}" for verb in ("reset", "finish", "cancel")} | {"text"}
    assert named == set(schema.names()) == set(LINES) | ELSEWHERE


def test_every_command_has_json(capsys):
    """And so has each inside a group, but for those that print help."""

    def leaves(command, words):
        import click

        if not isinstance(command, click.Group):
            yield command, words
            return
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from leaves(command.get_command(context, name), [*words, name])

    lacking = [
        words
        for command, words in leaves(app.efsstate, [])
        if "--json" not in [flag for parameter in command.params for flag in parameter.opts]
    ]
    assert lacking == []


def fields(part, path=""):
    """Yield (path, schema) of each field."""
    if isinstance(part, list):
        for each in part:
            yield from fields(each, path)
    if not isinstance(part, dict):
        return
    for name, each in part.get("properties", {}).items():
        yield f"{path}.{name}", each
        yield from fields(each, f"{path}.{name}")
    for name, each in part.items():
        if name == "$defs":
            for kind, definition in each.items():
                yield from fields(definition, kind)
        elif name != "properties":
            yield from fields(each, path)


def described(part):
    """Return True if a field says what it is, by itself or by what it refers to."""
    if "description" in part or "const" in part:
        return True
    name = part.get("$ref", "").removeprefix("#/$defs/")
    return "description" in schema.whole()["$defs"].get(name, {})


def test_every_field_is_described_and_every_number_has_a_unit():
    listed = dict(fields(schema.whole()))
    assert len(listed) > 250
    bare = {path for path, part in listed.items() if not described(part)}
    assert {path for path in bare if not path.endswith((".rows", ".datasets"))} - {
        ".schema"
    } == set()
    words = ("bytes", "dollars", "hours", "number", "schema", "exit", "bytes per second")
    for path, part in listed.items():
        if part.get("type") in ("integer", "number"):
            text = part["description"].lower()
            assert any(word in text for word in words), path


def test_no_field_of_version_1_goes_or_changes_its_type():
    """What a program may count on in version 1: a line goes from this list with the version."""
    kept = KEPT.read_text().splitlines()
    now = {f"{path}: {type_of(part)}" for path, part in fields(schema.whole())}
    assert [line for line in kept if line not in now] == []


def type_of(part):
    """Return the type of a field, in a word."""
    kind = part.get("$ref", "").removeprefix("#/$defs/") or part.get("type")
    kind = kind or "anyOf" * ("anyOf" in part) or "enum" * ("enum" in part) or "any"
    return kind if isinstance(kind, str) else "|".join(kind)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), {"a": [float("-inf"), 1.5]}])
def test_a_number_that_json_lacks_is_a_text(shell, value):
    Cache("odd", root=shell.tree.path).set("key", value)
    (row,) = shell.json("ls", "cache/odd")["rows"]
    _, out, _ = shell("show", row["path"], "--json")
    assert repr(check(out)["value"]).replace("'", "") == repr(value).replace("'", "")


@pytest.mark.parametrize(
    "damaged",
    [
        {"matched": "3"},
        {"rows": [{"path": "x"}]},
        {"more": 1},
        {"problems": None},
    ],
)
def test_a_document_that_is_not_so_is_noticed(shell, damaged):
    document = shell.json("ls") | damaged
    with pytest.raises(AssertionError, match="ls: "):
        check(json.dumps(document))


def test_the_schema_of_one_document_needs_no_other_file(shell):
    code, out, err = shell("schema", "checkpoint", "ls")
    one = json.loads(out)
    assert (code, err) == (0, "") and one["$id"] == "urn:efsstate:documents:1:checkpoint.ls"
    assert {"owner", "bytes"} <= set(one["$defs"]) and "finding" not in one["$defs"]
    Draft202012Validator(one).validate(shell.json("checkpoint", "ls"))
    assert json.loads(shell("schema")[1]) == schema.whole()
    code, out, err = shell("schema", "nonsense")
    assert code == 2 and "no such document" in err and "checkpoint.ls" in err
