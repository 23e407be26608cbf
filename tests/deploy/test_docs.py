"""The pages on deployment: links, commands and codes exist, and the CDK stack synthesises."""

from __future__ import annotations

import glob
import os
import pathlib
import re
import shlex
import shutil
import subprocess

import click
import pytest

from efsstate.cli import app
from efsstate.deploy import diagnosis
from efsstate.deploy.diagnosis.lambda_errors import EXCEPTIONS
from efsstate.deploy.linting.lint import lint, read
from efsstate.deploy.rules import RULES

DOCS = os.path.join(os.path.dirname(__file__), "..", "..", "docs")
PAGES = ("deploy.md", "troubleshooting.md", "choosing.md", "lint-comparison.md", "scale.md")


def text(name):
    with open(os.path.join(DOCS, name), encoding="utf-8") as file:
        return file.read()


@pytest.mark.parametrize("name", PAGES)
def test_links_and_codes_lead_somewhere(name):
    page = text(name)
    for target in re.findall(r"\]\(([^)#]+)", page):
        assert os.path.exists(os.path.join(DOCS, target)), target
    assert set(re.findall(r"\bEFS\d{3}\b", page)) <= set(RULES)


@pytest.mark.parametrize("name", PAGES)
def test_every_command_of_ours_parses(name):
    """Options and arguments as written are those that the commands have."""
    found = re.findall(
        r"^    (efsstate [^#\n]*?)\s*(?:#.*)?$", text(name), re.MULTILINE
    ) + re.findall(r"`(efsstate (?:template|lint|doctor)[^`]*)`", text(name))
    for line in found:
        words = shlex.split(line.replace(" …", ""))[1:]
        command = app.efsstate.get_command(click.Context(app.efsstate), words[0])
        assert command is not None, line
        with click.Context(command, resilient_parsing=True) as context:
            command.parse_args(context, words[1:])
            assert context.args == [], line
    assert found or name in ("choosing.md", "lint-comparison.md")


ROOT = pathlib.Path(DOCS).parent
TEXTS = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
    *sorted((ROOT / "src" / "efsstate").rglob("*.py")),
    *sorted((ROOT / "src" / "efsstate").rglob("*.toml")),
    *sorted((ROOT / "src" / "efsstate" / "deploy" / "templates").iterdir()),
    *ROOT.glob("*.md"),
]


def joined(path):
    """Return a file's text with its continued and wrapped lines joined."""
    return re.sub(r"\\?\s*\n\s*", " ", path.read_text(encoding="utf-8"))


def test_every_invocation_by_the_cli_waits_for_the_answer():
    """The CLI stops reading after 60 s and invokes again, unless it is told not to."""
    commands = 0
    for path in TEXTS:
        for match in re.finditer(r"aws lambda invoke\b(?!`)([^`]*)", joined(path)):
            commands += 1
            assert "--cli-read-timeout 0" in match[1][:200], path
    assert commands >= 1


def test_no_text_calls_fifteen_minutes_the_longest_timeout():
    """It is 1,800 s since November 2026; who names the old limit names the new one beside it."""
    old = re.compile(
        r"(?i)\b(900 s|900 seconds|15[ -]min(ute)?s?|fifteen minutes|quarter of an hour)"
    )
    named = 0
    for path in TEXTS:
        text = joined(path)
        for match in old.finditer(text):
            around = text[max(0, match.start() - 200) : match.end() + 200]
            if re.search(r"(?i)time-?out|lambda (takes|runs|ends)|longest|at most|up to", around):
                if re.search(r"doubled|retr|tried again|rate\(|doctor|replica|lags|behind", around):
                    continue  # another time: of retries, of a schedule, of replication
                named += 1
                assert "1,800" in around, (path, around)
                assert "2026" in around, (path, around)
    assert named >= 2, "EFS046 and the page of facts name both"


def test_the_errors_and_the_handlers_are_there():
    for one in EXCEPTIONS:
        assert one.name in text("troubleshooting.md")
    for handler in (
        "efsstate.janitor",
        "efsstate.ops",
        "efsstate.publisher",
        "efsstate.deploy.diagnosis.doctor",
    ):
        assert callable(__import__(handler, fromlist=["handler"]).handler)
    assert "`efsstate.publisher.handler`" in text("deploy.md")


def test_the_permissions_named_are_those_asked_for():
    """What `--aws` calls, as IAM spells it, is in the page's list."""
    folder = os.path.join(os.path.dirname(diagnosis.__file__), "account*.py")
    source = "".join(pathlib.Path(path).read_text(encoding="utf-8") for path in glob.glob(folder))
    calls = set(re.findall(r'"((?:describe|list|get|simulate)_\w+)"', source))
    calls.add("get_function_configuration")
    page = text("deploy.md")
    assert len(calls) > 15
    for call in calls:
        name = "".join(part.capitalize() for part in call.split("_"))
        efs = call.startswith("describe_") and "elasticfilesystem:Describe*" in page
        assert efs or f":{name}`" in page, call
    for name in re.findall(r'"ec2", "((?:describe|get)_\w+)"', source):
        assert f"ec2:{''.join(part.capitalize() for part in name.split('_'))}`" in page
    # Lambda's mount targets: the API of EFS reads their groups from the interfaces.
    assert "ec2:DescribeNetworkInterfaceAttribute`" in page


@pytest.mark.heavy
def test_the_cdk_stack_synthesises_and_lints_clean(tmp_path, pytestconfig):
    if shutil.which("node") is None:
        pytest.skip("no node here")
    modules = os.environ.get("CDK_MODULES")
    if modules is None:
        subprocess.run(
            ["npm", "install", "--silent", "--prefix", tmp_path, "aws-cdk-lib", "constructs"],
            check=True,
            capture_output=True,
        )
        modules = str(tmp_path / "node_modules")
    (code,) = re.findall(r"```js\n(.*?)```", text("deploy.md"), re.DOTALL)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "app.py").write_text("")
    (tmp_path / "run.js").write_text(code + "\napp.synth();\n")
    environment = {**os.environ, "NODE_PATH": modules, "CDK_OUTDIR": str(tmp_path / "out")}
    subprocess.run(
        ["node", "run.js"], cwd=tmp_path, env=environment, check=True, capture_output=True
    )
    path = str(tmp_path / "out" / "ImageService.template.json")
    assert lint(path) == []
    assert len(list(read(path).served())) == 4
