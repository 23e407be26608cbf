"""The table of docs/lint-comparison.md: what cfn-lint and checkov find in the corpus.

`UPDATE_PAGES=1` writes it.
"""

from __future__ import annotations

import collections
import importlib.metadata
import json
import os
import subprocess
import sys

import pytest
from tests.deploy import faults

from efsstate.deploy.linting.lint import lint
from efsstate.deploy.rules import RULES

HERE = os.path.dirname(__file__)
PAGE = os.path.join(HERE, "..", "..", "docs", "lint-comparison.md")
START, END = "<!-- table -->\n", "<!-- end of table -->"
NAMES = sorted(faults.BROKEN)


def by_cfn_lint(paths):
    """Rules that fire, by file."""
    program = "from cfnlint.runner.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--format", "json", *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    found = collections.defaultdict(set)
    for one in json.loads(done.stdout):
        found[os.path.basename(one["Filename"])].add(one["Rule"]["Id"])
    return found


def by_checkov(program, paths):
    found = collections.defaultdict(set)
    for framework, end in (("cloudformation", ".yaml"), ("terraform", ".tf")):
        files = [argument for path in paths if path.endswith(end) for argument in ("-f", path)]
        command = [program, *files, "--framework", framework, "-o", "json", "--compact"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        for one in json.loads(done.stdout)["results"]["failed_checks"]:
            found[os.path.basename(one["file_path"])].add(one["check_id"])
    return found


def table(program, folder):
    broken = faults.write_all(folder)
    paths = [*broken.values(), f"{HERE}/corpus/good/base.yaml", f"{HERE}/corpus/good/base.tf"]
    theirs = by_cfn_lint([path for path in paths if path.endswith(".yaml")])
    checks = by_checkov(program, paths)
    rows, counts = [], collections.Counter()
    for name in NAMES:
        ours = {one.code for one in lint(broken[name])}
        base = "base" + os.path.splitext(name)[1]
        other, third = theirs[name] - theirs[base], checks[name] - checks[base]
        code = name[:6]
        counts["ours"] += code in ours
        counts["cfn-lint"] += bool(other)
        counts["checkov"] += bool(third)
        counts["yaml"] += name.endswith(".yaml")
        cells = [", ".join(sorted(some)) or "nothing" for some in (ours, other, third)]
        if name.endswith(".tf"):
            cells[1] = "no Terraform"
        rows.append(f"| {RULES[code].title} | `{name}` | {' | '.join(cells)} |")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    checkov_version = version.stdout.strip()
    versions = f"cfn-lint {importlib.metadata.version('cfn-lint')}, checkov {checkov_version}"
    head = (
        f"Of {len(NAMES)} broken templates `efsstate lint` finds {counts['ours']}, cfn-lint\n"
        f"reports something new on {counts['cfn-lint']} (of the {counts['yaml']} that are "
        f"CloudFormation), checkov\non {counts['checkov']}. Versions: {versions}.\n\n"
        "| fault | template | efsstate lint | cfn-lint | checkov |\n|---|---|---|---|---|\n"
    )
    return head + "\n".join(rows) + "\n"


@pytest.mark.heavy
def test_the_page_has_todays_table(checkov, tmp_path):
    made = table(checkov, tmp_path)
    with open(PAGE, encoding="utf-8") as file:
        text = file.read()
    before, _, rest = text.partition(START)
    old, _, after = rest.partition(END)
    if os.environ.get("UPDATE_PAGES"):
        with open(PAGE, "w", encoding="utf-8") as file:
            file.write(before + START + made + END + after)
        old = made
    assert [row for row in old.splitlines() if row.startswith("|")] == [
        row for row in made.splitlines() if row.startswith("|")
    ]
