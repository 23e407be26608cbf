"""A Lambda function: its settings, and the environments that serve it."""

from __future__ import annotations

import os
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from efsstate.deploy.aws_facts import number
from efsstate.testing._environment import ASYNC_EVENT_LIMIT, EVENT_LIMIT, Environment, encode
from efsstate.testing._settings import EPHEMERAL_STORAGE, MANAGED_MEMORY, Settings, variables

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType
    from typing import Self

    from efsstate.testing._environment import Result

INIT_TIMEOUT = number("init")  # seconds; then the init is run again in the first invocation
MANAGED_INIT_TIMEOUT = 130.0  # seconds, or the function's timeout if that is longer
RETRIES = int(number("retries"))  # of an asynchronous call
MEMORY = 128  # MB


class Throttled(RuntimeError):  # noqa: N818 - Lambda calls it throttling
    """Every environment was busy, and the call was refused as Lambda does (TooManyRequests)."""


class Function:
    """A handler that runs as Lambda would run it.

    `handler`: "module.function", imported from the folder `path`.
    `environment`: variables beside those that Lambda sets; of this process's own only PATH,
        PYTHONPATH and LD_LIBRARY_PATH are passed on.
    `timeout`, `init_timeout`: seconds.
    `memory`: MB. A process that takes more, with its children, is killed as on Lambda: the error is
        Runtime.ExitError, "Runtime exited with error: signal: killed". Looked at every 20 ms.
    `ephemeral_storage`: MB in TMPDIR. Beyond it writes fail with ENOSPC. It needs root rights; a
        function without them is warned about once it has written more.
    `concurrency`: the most environments; a further call waits for a free one, or is refused with
        `Throttled` if `throttle=True`, as Lambda does.
    `freeze`: stop an environment between invocations, as Lambda does (the default).
    `read_only`: make `path` read-only, as Lambda's task root is. It needs root rights, and is left
        out without them. A folder inside it that a variable names stays writable.
    `extension`: send SIGTERM before an environment ends, as Lambda does only if an extension is
        registered.
    `packages`: a folder made by `pip install --target`: nothing else of this machine is
        importable, except the packages of Lambda's Python.
    `max_concurrency`: make the environments Managed Instances: this many Python processes in each,
        never frozen, with 4,096 descriptors, JSON logs and at least 2,048 MB. A timeout ends the
        call and not the code.
    """

    def __init__(
        self,
        handler: str,
        *,
        path: str | os.PathLike[str] = ".",
        environment: Mapping[str, str] | None = None,
        timeout: float = 3,
        memory: int | None = None,
        ephemeral_storage: int = EPHEMERAL_STORAGE,
        name: str = "function",
        region: str = "us-east-1",
        freeze: bool | None = None,
        concurrency: int | None = None,
        throttle: bool = False,
        max_concurrency: int | None = None,
        init_timeout: float | None = None,
        read_only: bool = True,
        extension: bool = False,
        packages: str | os.PathLike[str] | None = None,
        python: str = sys.executable,
    ) -> None:
        is_managed = max_concurrency is not None
        if freeze and is_managed:
            raise ValueError(
                "freeze: Managed Instances are never frozen; leave out freeze or max_concurrency"
            )
        if memory is None:
            memory = MANAGED_MEMORY if is_managed else MEMORY
        if is_managed and memory < MANAGED_MEMORY:
            raise ValueError(f"memory: Managed Instances have at least {MANAGED_MEMORY} MB")
        folder = os.path.abspath(path)
        if init_timeout is None:
            init_timeout = max(MANAGED_INIT_TIMEOUT, timeout) if is_managed else INIT_TIMEOUT
        self.name = name
        self.environments: list[Environment] = []
        self._concurrency = concurrency
        self._throttle = throttle
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
            freeze=not is_managed if freeze is None else freeze,
            processes=max_concurrency,
            memory=memory,
            ephemeral_storage=ephemeral_storage,
            read_only=read_only,
            extension=extension,
            packages=None if packages is None else os.path.abspath(packages),
        )

    def __repr__(self) -> str:
        count = len(self.environments)
        plural = "" if count == 1 else "s"
        return f"<Function {self.name!r} of {self._settings.handler}, {count} environment{plural}>"

    def environment(self) -> Environment:
        """Return a new execution environment; its init begins now."""
        with self._changed:
            return self._new()

    def invoke(
        self, event: Any = None, *, client_context: Any = None, tenant_id: str | None = None
    ) -> Result:
        """Run the handler in a warm free environment, the last used first, else in a new one."""
        body = encode(event, EVENT_LIMIT)
        return self._take().invoke_taken(body, client_context, tenant_id)

    def invoke_async(
        self, event: Any = None, *, retries: int = RETRIES, duplicate: bool = False
    ) -> list[Result]:
        """Run the handler as for an asynchronous call; return the result of each attempt, in order.

        Lambda tries again after an error, twice by default, with the same request id. `duplicate`
        delivers the event once more after a success: its queue promises "at least once". The event
        has up to 1 MiB. The waits of a minute and of two between the attempts are left out.
        """
        body = encode(event, ASYNC_EVENT_LIMIT)
        request_id = str(uuid.uuid4())
        results: list[Result] = []
        while not results or (results[-1].error is not None and len(results) <= retries):
            results.append(self._take().invoke_taken(body, request_id=request_id))
        if duplicate and results[-1].error is None:
            results.append(self._take().invoke_taken(body, request_id=request_id))
        return results

    def map(self, events: Iterable[Any]) -> list[Result]:
        """Run the handler on all events at once, in as many environments as that takes.

        The results are in the events' order.
        """
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
        """Return an environment with one of its slots taken. Raise Throttled if none is free."""
        with self._changed:
            while True:
                for environment in reversed(self.environments):
                    if environment.slots.acquire(blocking=False):
                        # The last used is the first to be taken again.
                        self.environments.remove(environment)
                        self.environments.append(environment)
                        return environment
                if self._concurrency is None or len(self.environments) < self._concurrency:
                    environment = self._new()
                    environment.slots.acquire()
                    return environment
                if self._throttle:
                    raise Throttled(f"{self.name}: Rate Exceeded: all environments are busy")
                self._changed.wait()
