"""Write the table of AWS's managed policies that the linter reads, from moto's copy of them.

Run `python scripts/managed_policies.py` after an upgrade of moto. Of each policy only the actions
are kept that a rule asks for: mounting, network interfaces, and which services it is about at all.
Those that a policy denies whatever the condition are a table of their own.
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
import json
import pathlib

TARGET = "src/efsstate/deploy/linting/managed_policies.json"
ACTIONS = (
    "elasticfilesystem:ClientMount",
    "elasticfilesystem:ClientWrite",
    "elasticfilesystem:ClientRootAccess",
    "s3files:ClientMount",
    "s3files:ClientWrite",
    "s3files:ClientRootAccess",
    "ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DeleteNetworkInterface",
)
SERVICES = ("s3", "dynamodb", "sqs", "sns", "ssm", "secretsmanager", "kinesis", "states")


def as_list(value: str | list[str] | None) -> list[str]:
    """Return one text or a list of them as a list."""
    return [value] if isinstance(value, str) else list(value or ())


def covered(patterns: list[str], action: str) -> bool:
    """Return True if a pattern of a policy covers an action."""
    return any(fnmatch.fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns)


def kept(document: dict[str, object]) -> list[str]:
    """Return the actions of a policy that a rule asks for."""
    actions: set[str] = set()
    statements = document["Statement"]
    for statement in statements if isinstance(statements, list) else [statements]:
        if statement["Effect"] != "Allow":
            continue
        if "NotAction" in statement:
            excluded = as_list(statement["NotAction"])
            actions.update(action for action in ACTIONS if not covered(excluded, action))
            continue
        patterns = as_list(statement["Action"])
        actions.update(action for action in ACTIONS if covered(patterns, action))
        for service in SERVICES:
            if any(pattern.lower().startswith(f"{service}:") for pattern in patterns):
                actions.add(f"{service}:*")
    return sorted(actions)


def denied(document: dict[str, object]) -> list[str]:
    """Return the actions that a policy denies without a condition, of those that a rule asks for.

    A statement about a part of the resources is left out: whether it meets a mount depends on it.
    """
    actions: set[str] = set()
    statements = document["Statement"]
    for statement in statements if isinstance(statements, list) else [statements]:
        if statement["Effect"] != "Deny" or statement.get("Condition"):
            continue
        if "*" not in as_list(statement.get("Resource")):
            continue
        excluded = as_list(statement.get("NotAction"))
        patterns = as_list(statement.get("Action"))
        actions.update(
            action
            for action in ACTIONS
            if (covered(patterns, action) if patterns else not covered(excluded, action))
        )
    return sorted(actions)


def main(root: pathlib.Path) -> None:
    """Write the tables."""
    from moto.iam.aws_managed_policies import aws_managed_policies_data

    policies = json.loads(aws_managed_policies_data)
    table = {name: kept(policies[name]["Document"]) for name in sorted(policies)}
    source = f"moto {importlib.metadata.version('moto')}"
    rows = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps(actions)}" for name, actions in table.items()
    )
    refused = {name: denied(policies[name]["Document"]) for name in sorted(policies)}
    denials = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps(actions)}"
        for name, actions in refused.items()
        if actions
    )
    text = f'{{"source": "{source}", "policies": {{\n{rows}\n}},\n"denied": {{\n{denials}\n}}}}\n'
    (root / TARGET).write_text(text, encoding="utf-8")
    print(f"{len(table)} policies from {source}")


if __name__ == "__main__":
    main(pathlib.Path(__file__).resolve().parent.parent)
