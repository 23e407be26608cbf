"""The table of all codes.

A new rule is a function and a row in the module of its subject; its page is generated from the row.
"""

from __future__ import annotations

from efsstate.deploy.diagnosis import account_rules, mount_rules
from efsstate.deploy.findings import Rule
from efsstate.deploy.linting import (
    rules_access,
    rules_function,
    rules_groups,
    rules_points,
    rules_policies,
    rules_reach,
    rules_storage,
    rules_targets,
)

_MODULES = (
    rules_groups,
    rules_targets,
    rules_reach,
    rules_access,
    rules_points,
    rules_policies,
    rules_function,
    rules_storage,
    mount_rules,
    account_rules,
)
RULES: dict[str, Rule] = {
    rule.code: rule
    for rule in sorted((rule for module in _MODULES for rule in module.RULES), key=lambda r: r.code)
}
