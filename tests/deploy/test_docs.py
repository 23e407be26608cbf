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
PAGES = ("deploy.md", "troubleshooting.md", "choosing.md", "lint-comparison.md")


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
