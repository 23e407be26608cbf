"""The pages of the codes are the table's, with an example from the corpus. `UPDATE_PAGES=1` writes them anew."""

from __future__ import annotations

import difflib
import os

from tests.deploy.faults import BROKEN, T, Y

from efsstate.deploy.rule_docs import index, page
from efsstate.deploy.rules import RULES

HERE = os.path.dirname(__file__)
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
