"""A Lambda function: its settings, and the environments that serve it."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from efsstate.testing._environment import Environment
from efsstate.testing._settings import Settings, variables

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType
    from typing import Self

    from efsstate.testing._result import Result

INIT_TIMEOUT = 10.0  # seconds; then the init is run again in the first invocation
MANAGED_INIT_TIMEOUT = 130.0  # seconds, or the function's timeout if that is longer


class Function:
    """A handler to be run as Lambda would run it.

    `handler` is "module.function", found from the folder `path`. `environment` adds to the variables that Lambda sets; nothing
    else of this process's variables is passed on but PATH, PYTHONPATH and LD_LIBRARY_PATH. `timeout` and `init_timeout` are in
    seconds, `memory` in MB (told, not enforced). `concurrency` bounds the environments: further calls wait for a free one.
    `freeze=True` stops an environment between invocations, as Lambda does. `max_concurrency=4` makes them Managed Instances:
    four Python processes in each, never frozen, and a timeout that ends the call but not the code.
    """

    def __init__(
        self,
        handler: str,
        *,
        path: str | os.PathLike[str] = ".",
        environment: Mapping[str, str] | None = None,
        timeout: float = 3,
        memory: int = 128,
        name: str = "function",
        region: str = "us-east-1",
        freeze: bool = False,
        concurrency: int | None = None,
        max_concurrency: int | None = None,
        init_timeout: float | None = None,
        python: str = sys.executable,
    ) -> None:
        if freeze and max_concurrency is not None:
            raise ValueError(
                "freeze: Managed Instances are never frozen: leave out freeze or max_concurrency"
            )
        folder = os.path.abspath(path)
        if init_timeout is None:
            init_timeout = (
                INIT_TIMEOUT if max_concurrency is None else max(MANAGED_INIT_TIMEOUT, timeout)
            )
        self.name = name
        self.environments: list[Environment] = []
        self._concurrency = concurrency
        self._changed = threading.Condition()
        self._settings = Settings(
            handler=handler,
            path=folder,
            variables=variables(
                handler=handler,
                path=folder,
                name=name,
                memory=memory,
                region=region,
                processes=max_concurrency,
                environment=environment or {},
            ),
            python=python,
            arn=f"arn:aws:lambda:{region}:123456789012:function:{name}",
            timeout=timeout,
            init_timeout=init_timeout,
            freeze=freeze,
            processes=max_concurrency,
        )

    def environment(self) -> Environment:
        """A new execution environment, whose init begins now."""
        with self._changed:
            return self._new()

    def invoke(self, event: Any = None, *, client_context: Any = None) -> Result:
        """Run the handler in a warm free environment, the last used first, else in a new one."""
        return self._take().invoke_taken(event, client_context)

    def map(self, events: Iterable[Any]) -> list[Result]:
        """Run the handler on all events at once, in as many environments as that takes; results in the events' order."""
        events = list(events)
        with ThreadPoolExecutor(max_workers=max(1, len(events))) as pool:
            return list(pool.map(self.invoke, events))

    def close(self) -> None:
        """End every environment."""
        for environment in self.environments:
            environment.close()
        self.environments.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _new(self) -> Environment:
        environment = Environment(self._settings, self._notify)
        self.environments.append(environment)
        self._changed.notify_all()
        return environment

    def _take(self) -> Environment:
        """An environment with one of its slots taken."""
        with self._changed:
            while True:
                for environment in reversed(self.environments):
                    if environment.slots.acquire(blocking=False):
                        self.environments.remove(environment)
                        self.environments.append(
                            environment
                        )  # the last used is the first to be taken again
                        return environment
                if self._concurrency is None or len(self.environments) < self._concurrency:
                    environment = self._new()
                    environment.slots.acquire()
                    return environment
                self._changed.wait()
