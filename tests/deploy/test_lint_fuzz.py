"""Damaged templates: the linter answers, or says in one line why not."""

from __future__ import annotations

import glob
import os
import random

import pytest

from efsstate.deploy.linting.lint import lint
from efsstate.errors import TemplateError

CORPUS = os.path.join(os.path.dirname(__file__), "corpus")
FILES = sorted(glob.glob(f"{CORPUS}/good/*"))
WORDS = [
    "!Ref X", "!GetAtt [A, B]", "!If [A, B]", "!Sub {}", "[]", "{}", "- -", "null", "true", "-1",
    "1e999", '"', "'", "|", ">", "&a", "*a", "<<: x", "!Select [a, b]", "!Join [',', !Ref A]",
    "!FindInMap []", "!Cidr x", "Fn::If: 3", "Ref: {}", "Fn::ForEach::A: 1", "\x7f", "\u2028",
    "é", "0", "NaN", "${a.b}", "${", "}", "[", "]", "<<EOF", "for x in y : z", "jsonencode({",
    "? :", "&&", "!", "each.value", "count.index", "null", 'dynamic "x" {', "/*", "//",
]  # fmt: skip


def damage(text, chance):
    lines = text.splitlines(keepends=True)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(lines))
        kind = chance.randrange(6)
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines.insert(at, lines[chance.randrange(len(lines))])
        elif kind == 2:
            head, mark, _ = lines[at].partition(chance.choice([": ", "= "]))
            lines[at] = f"{head}{mark}{chance.choice(WORDS)}\n"
        elif kind == 3:
            cut = chance.randrange(len(lines[at]) or 1)
            lines[at] = lines[at][:cut] + chance.choice(WORDS) + lines[at][cut:]
        elif kind == 4:
            other = chance.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        else:
            lines[at] = (
                "".join(chance.sample(lines[at].rstrip("\n"), len(lines[at].rstrip("\n")))) + "\n"
            )
        lines = lines or ["x\n"]
    return "".join(lines)


@pytest.mark.parametrize("path", FILES, ids=os.path.basename)
def test_a_damaged_template_is_checked_or_refused(path, tmp_path):
    rounds = int(os.environ.get("FUZZ_ROUNDS", "25"))
    with open(path, encoding="utf-8") as file:
        text = file.read()
    target = tmp_path / os.path.basename(path)
    for seed in range(rounds):
        message = ""
        target.write_text(
            damage(text, random.Random(f"{os.path.basename(path)} {seed}")), encoding="utf-8"
        )
        try:
            for one in lint(str(target)):
                assert one.evidence
        except TemplateError as error:
            message = str(error)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
        assert "\n" not in message, (seed, message)
