"""The table of all codes. A new rule is a function and a line in the module of its subject; its page is made from the line."""

from __future__ import annotations

from efsstate.deploy.diagnosis import account_rules, mount_rules
from efsstate.deploy.findings import Rule
from efsstate.deploy.linting import rules_access, rules_function, rules_network, rules_storage

RULES: dict[str, Rule] = {
    rule.code: rule
    for module in (
        rules_network,
        rules_access,
        rules_function,
        rules_storage,
        mount_rules,
        account_rules,
    )
    for rule in module.RULES
}
