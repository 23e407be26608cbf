"""The work of the linter: how often it parses, whatever the machine's speed."""

from __future__ import annotations

import collections

import hcl2
import pytest
from tests.deploy.faults import T, Y

from efsstate.deploy.linting import hcl_expressions, hcl_text, lint
from efsstate.deploy.linting.lint import check
from efsstate.deploy.template import render
from efsstate.errors import TemplateError


@pytest.fixture
def parsed(monkeypatch):
    """Count each text that the HCL parser is given."""
    counts = collections.Counter()
    loads = hcl2.loads

    def count(text):
        counts[text] += 1
        return loads(text)

    monkeypatch.setattr(hcl2, "loads", count)
    hcl_text.parse_literal.cache_clear()
    yield counts
    hcl_text.parse_literal.cache_clear()


def test_terraform_is_parsed_once(parsed, tmp_path):
    """The template's file once, and each list or object of its expressions once."""
    path = tmp_path / "main.tf"
    path.write_text(render("terraform"))
    assert check(str(path)).functions
    assert set(parsed.values()) == {1}
    assert len(parsed) <= 10


def test_a_large_folder_is_parsed_once_a_file(parsed, tmp_path):
    for number in range(20):
        text = T.replace("aws_efs_file_system.", f"aws_efs_file_system.f{number}_")
        (tmp_path / f"part{number}.tf").write_text(text)
    check(str(tmp_path))
    assert set(parsed.values()) == {1}
    assert len(parsed) <= 20 * 2 + 1, "and the two policies in each, of which one is the same"


def test_a_module_that_is_called_often_is_parsed_once(parsed, tmp_path):
    """A call more is no parse more, and each call has its own findings."""
    module = tmp_path / "app"
    module.mkdir()
    (module / "main.tf").write_text(T + 'variable "timeout" { default = 60 }\n')
    calls = [f'module "m{number}" {{\n  source = "./app"\n}}\n' for number in range(12)]
    (tmp_path / "main.tf").write_text("".join(calls))
    report = check(str(tmp_path))
    assert report.functions == 12
    assert set(parsed.values()) == {1}
    assert len(parsed) <= 2 + 4


def test_a_cloudformation_template_is_parsed_once(monkeypatch, tmp_path):
    counts = collections.Counter()
    parse = lint.parse

    def count(text, path):
        counts[path] += 1
        return parse(text, path)

    monkeypatch.setattr(lint, "parse", count)
    path = tmp_path / "template.yaml"
    path.write_text(Y)
    assert check(str(path)).functions == 1
    assert counts == {str(path): 1}


@pytest.mark.parametrize(
    "each", ['"${local.a%(next)d}${local.a%(next)d}"', "[local.a%(next)d, local.a%(next)d]"]
)
def test_references_that_double_do_not_hang(each, monkeypatch, tmp_path):
    monkeypatch.setattr(hcl_expressions, "MAX_RESOLVED", 2_000)
    doubled = "".join(f"  a{i} = {each % {'next': i + 1}}\n" for i in range(30))
    path = tmp_path / "main.tf"
    path.write_text(
        f'locals {{\n{doubled}  a30 = "x"\n}}\n'
        'resource "aws_subnet" "s" {\n  cidr_block = local.a0\n}\n'
    )
    with pytest.raises(TemplateError, match=r"main.tf: its references unfold to over 2,000"):
        check(str(path))
