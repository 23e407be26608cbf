"""The settings that all environments of a function share, and the variables that they find."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from efsstate.deploy.aws_facts import number

if TYPE_CHECKING:
    from collections.abc import Mapping

DESCRIPTORS = int(number("descriptors"))
MANAGED_DESCRIPTORS = int(number("descriptors-managed"))
EPHEMERAL_STORAGE = int(number("ephemeral"))  # MB
MANAGED_MEMORY = int(number("memory-managed"))  # MB, the least


@dataclass(frozen=True)
class Settings:
    """How an environment is started, and how long it may take; times in seconds."""

    handler: str
    path: str
    variables: Mapping[str, str]
    python: str
    arn: str
    timeout: float
    init_timeout: float
    freeze: bool
    processes: int | None
    """For Managed Instances: the number of processes in one environment."""
    memory: int
    """MB."""
    ephemeral_storage: int = EPHEMERAL_STORAGE
    """MB in /tmp."""
    read_only: bool = True
    extension: bool = False
    packages: str | None = None

    @property
    def descriptors(self) -> int:
        """The number of file descriptors that a process may open."""
        return DESCRIPTORS if self.processes is None else MANAGED_DESCRIPTORS


def variables(
    *,
    handler: str,
    path: str,
    name: str,
    memory: int,
    region: str,
    processes: int | None,
    environment: Mapping[str, str],
) -> dict[str, str]:
    """Return the variables that Lambda sets, with `environment` over them.

    Nothing else of this process is passed on but the way to its interpreter and packages.
    """
    major, minor = sys.version_info[:2]
    values = {
        "PATH": os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "_HANDLER": handler,
        "LAMBDA_TASK_ROOT": path,
        "LAMBDA_RUNTIME_DIR": path,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{major}.{minor}",
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory),
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/" + name,
        "AWS_LAMBDA_LOG_FORMAT": "Text",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        # Credentials without any rights: code finds some, as it does on Lambda.
        "AWS_ACCESS_KEY_ID": "ASIATESTINGTESTING00",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_SESSION_TOKEN": "testing",
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "AWS_XRAY_DAEMON_ADDRESS": "169.254.79.129:2000",
        "_AWS_XRAY_DAEMON_ADDRESS": "169.254.79.129",
        "_AWS_XRAY_DAEMON_PORT": "2000",
    }
    for kept in ("PYTHONPATH", "LD_LIBRARY_PATH"):
        if os.environ.get(kept):
            values[kept] = os.environ[kept]
    if processes is not None:
        values["AWS_LAMBDA_MAX_CONCURRENCY"] = str(processes)
        values["AWS_LAMBDA_INITIALIZATION_TYPE"] = "lambda-managed-instances"
        values["AWS_LAMBDA_LOG_FORMAT"] = "JSON"
    return {**values, **environment}
