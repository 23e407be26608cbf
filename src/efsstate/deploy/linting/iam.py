"""Statements of IAM policies: what they grant, to whom, under which condition."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from efsstate.deploy.linting.resource import Resource
from efsstate.deploy.linting.values import items

# AWS's own policies that let a role mount, by what they allow.
MANAGED = {
    "AmazonElasticFileSystemClientReadWriteAccess": [
        "elasticfilesystem:ClientMount",
        "elasticfilesystem:ClientWrite",
    ],
    "AmazonElasticFileSystemClientReadOnlyAccess": ["elasticfilesystem:ClientMount"],
    "AmazonElasticFileSystemClientFullAccess": ["elasticfilesystem:Client*"],
    "AmazonElasticFileSystemFullAccess": ["elasticfilesystem:*"],
    "AmazonElasticFileSystemReadOnlyAccess": [],
    "AdministratorAccess": ["*"],
    "PowerUserAccess": ["*"],
    "AWSLambdaVPCAccessExecutionRole": [],
    "AWSLambdaBasicExecutionRole": [],
    "AWSLambdaExecute": ["s3:*"],
    "AWSXRayDaemonWriteAccess": [],
    "AWSXrayWriteOnlyAccess": [],
    "AmazonS3ReadOnlyAccess": ["s3:Get*"],
    "AmazonS3FullAccess": ["s3:*"],
    "AmazonDynamoDBFullAccess": ["dynamodb:*"],
}


class Statement(NamedTuple):
    """A statement of an IAM policy."""

    allow: bool
    actions: list[str]
    resources: list[Any]
    conditions: dict[str, Any]
    owner: Resource
    line: int = 0
    principal: Any = None
    managed: str = ""
    """The name of AWS's policy it comes from."""

    def grants(self, action: str) -> bool:
        """Whether it allows an action, by name or pattern."""
        return self.allow and any(covers(pattern, action) for pattern in self.actions)

    def condition(self, key: str) -> Any:
        """What a condition key is compared with, under whichever operator; None without one."""
        for comparison in self.conditions.values():
            if isinstance(comparison, dict):
                for name, value in comparison.items():
                    if name.lower() == key.lower():
                        return value
        return None


def covers(pattern: str, action: str) -> bool:
    """Whether an action pattern of IAM (`*` and `?`) covers an action or, for an action ending in `*`, one of those."""
    return fnmatchcase(action.lower(), pattern.lower().replace("[", "[[]"))


def statements_of(policy: Any, owner: Resource, line: int = 0) -> list[Statement]:
    """The statements of a policy document."""
    if not isinstance(policy, dict):
        return []
    found = []
    for one in items(policy.get("Statement")):
        if isinstance(one, dict):
            condition = one.get("Condition")
            found.append(
                Statement(
                    str(one.get("Effect", "")).lower() == "allow",
                    [str(action) for action in items(one.get("Action"))],
                    items(one.get("Resource")),
                    condition if isinstance(condition, dict) else {},
                    owner,
                    getattr(one, "line", 0) or line,
                    one.get("Principal"),
                )
            )
    return found
