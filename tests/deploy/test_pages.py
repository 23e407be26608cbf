"""The pages of the codes and facts are generated. `UPDATE_PAGES=1` writes them."""

from __future__ import annotations

import difflib
import glob
import os
import re
import tomllib

from tests.deploy.faults import BROKEN, T, Y

from efsstate.deploy import aws_facts
from efsstate.deploy.rule_docs import index, page
from efsstate.deploy.rules import RULES

HERE = os.path.dirname(__file__)
ROOT = os.path.join(HERE, "..", "..")
PAGES = os.path.join(HERE, "..", "..", "docs", "lint")


def example(code):
    """What a broken template of the corpus has, and the good one instead."""
    names = sorted(
        (name for name in BROKEN if name.startswith(code)),
        key=lambda name: (name.endswith(".tf"), name),
    )
    if not names:
        return ""
    good = T if names[0].endswith(".tf") else Y
    lines = list(
        difflib.unified_diff(BROKEN[names[0]].splitlines(), good.splitlines(), lineterm="", n=2)
    )[2:]
    body = "\n".join("" if line.startswith("@@") else line for line in lines).strip("\n")
    return f"From wrong to right:\n\n```diff\n{body}\n```"


def test_pages_are_the_tables():
    wanted = {f"{code}.md": page(rule, example(code)) for code, rule in RULES.items()} | {
        "README.md": index(RULES)
    }
    if os.environ.get("UPDATE_PAGES"):
        os.makedirs(PAGES, exist_ok=True)
        for name, text in wanted.items():
            with open(os.path.join(PAGES, name), "w", encoding="utf-8") as file:
                file.write(text)
    assert sorted(os.listdir(PAGES)) == sorted(wanted)
    for name, text in wanted.items():
        with open(os.path.join(PAGES, name), encoding="utf-8") as file:
            assert file.read() == text, f"{name}: run this test with UPDATE_PAGES=1"


def test_codes_are_in_order_and_say_something():
    assert list(RULES) == sorted(RULES)
    for rule in RULES.values():
        assert len(rule.why) > 40, rule.code
        assert len(rule.fix) > 15, rule.code
        assert rule.title[0].isupper() or rule.title.startswith("EFS"), rule.code
        assert not rule.title.endswith("."), rule.code


def test_the_page_of_facts_is_the_tables():
    path = os.path.join(PAGES, "..", "aws-facts.md")
    if os.environ.get("UPDATE_PAGES"):
        with open(path, "w", encoding="utf-8") as file:
            file.write(aws_facts.page())
    with open(path, encoding="utf-8") as file:
        assert file.read() == aws_facts.page(), "run this test with UPDATE_PAGES=1"


# The same figure in the planner's data, in the unit of the fact.
PLANNED = {
    "network": ("lambda", "network", 1),
    "scaling": ("lambda", "starts", 0.1),
    "baseline": ("bursting", "baseline_per_gib", 1 / 1024),
    "burst": ("bursting", "burst_per_tib", 1),
    "credits-new": ("bursting", "credits_tib", 1),
    "elastic-least": ("elastic", "least_data", 1024),
    "elastic-metadata": ("elastic", "least_metadata", 1024),
    "ia-minimum": ("storage", "cold_least", 1024),
    "dynamodb-item": ("dynamodb", "largest", 1024),
    "image": ("ecr", "largest", 1 << 30),
    "standard": ("storage", "standard", 1),
    "ia-elastic": ("storage", "ia_elastic", 1),
    "ia": ("storage", "ia", 1),
    "archive": ("storage", "archive", 1),
    "elastic-read": ("elastic", "read_gb", 1),
    "elastic-write": ("elastic", "write_gb", 1),
    "provisioned": ("provisioned", "month_per_mib", 1),
    "s3": ("s3", "gb", 1),
    "s3-files": ("s3_files", "gb", 1),
    "dynamodb": ("dynamodb", "gb", 1),
    "ecr": ("ecr", "gb", 1),
}


def test_the_planner_computes_with_the_same_figures():
    """What a page says and what `efsstate plan` computes with is changed together."""
    folder = os.path.join(ROOT, "src", "efsstate", "planning")
    tables = {}
    for name in ("limits.toml", "prices/us-east-1.toml"):
        with open(os.path.join(folder, name), "rb") as file:
            for table, row in tomllib.load(file).items():
                tables.setdefault(table, {}).update(row if isinstance(row, dict) else {})
    for key, (table, name, unit) in PLANNED.items():
        assert tables[table][name] == aws_facts.number(key) * unit, key


def test_figures_that_pages_quote_are_the_facts():
    """A link to a fact has the fact's own text, and every fact says where and when it was read."""
    facts = aws_facts.facts()
    for path in [*glob.glob(f"{PAGES}/../*.md"), f"{ROOT}/README.md"]:
        with open(path, encoding="utf-8") as file:
            for text, key in re.findall(
                r"\[([^\]]+)\]\([^)]*aws-facts\.md#([\w-]+)\)", file.read()
            ):
                assert " ".join(text.split()) == facts[key].text, (path, key)
    for fact in facts.values():
        assert fact.source, fact.key
        assert fact.read, fact.key
        if fact.value is not None:
            words = {"two": 2}
            digits = re.search(r"[\d.,]*\d", fact.text)
            number = float(digits[0].replace(",", "")) if digits else words[fact.text]
            assert number == fact.value, fact.key


def test_findings_about_throughput_or_cost_name_the_planner():
    """And every command that they name is one that `efsstate plan` takes."""
    from efsstate.cli.plan import command

    known = {option for parameter in command.params for option in parameter.opts}
    naming = {code for code, rule in RULES.items() if "`efsstate plan" in rule.fix}
    assert naming == {"EFS051", "EFS052", "EFS113", "EFS205", "EFS206", "EFS207"}
    for code in naming:
        for line in re.findall(r"`efsstate plan ([^`]*)`", RULES[code].fix):
            assert {word for word in line.split() if word.startswith("-")} <= known
