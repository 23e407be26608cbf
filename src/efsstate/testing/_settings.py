"""What all environments of a function have in common, and the variables that they find."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Settings:
    """How an environment is started and how long it may take; times in seconds."""

    handler: str
    path: str
    variables: Mapping[str, str]
    python: str
    arn: str
    timeout: float
    init_timeout: float
    freeze: bool
    processes: int | None  # Managed Instances: this many in one environment


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
    """What Lambda puts into a function's environment; nothing of ours but the way to the installed packages."""
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
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
    }
    for kept in ("PYTHONPATH", "LD_LIBRARY_PATH"):
        if os.environ.get(kept):
            values[kept] = os.environ[kept]
    if processes is not None:
        values["AWS_LAMBDA_MAX_CONCURRENCY"] = str(processes)
        values["AWS_LAMBDA_INITIALIZATION_TYPE"] = "lambda-managed-instances"
    return {**values, **environment}
