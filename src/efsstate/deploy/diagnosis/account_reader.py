"""Calls of AWS's APIs for the doctor, with a note of each that was not allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import botocore.exceptions  # type: ignore[import-untyped]

from efsstate.deploy.diagnosis.account_facts import reason
from efsstate.deploy.diagnosis.account_rules import LINKS
from efsstate.deploy.findings import Hit
from efsstate.deploy.linting.resource import Resource


class Reader:
    """The parts of an account read so far: resources, hits, and calls that failed."""

    def __init__(self, make_client: Callable[[str], Any]) -> None:
        """Read through the clients that `make_client` makes, one for each service."""
        self._make_client = make_client
        self._clients: dict[str, Any] = {}
        self.resources: dict[str, Resource] = {}
        self.hits: list[tuple[str, Hit]] = []
        self.unseen: list[str] = []
        self.seen: dict[str, list[str]] = {link: [] for link in LINKS}
        self.partial: set[str] = set()
        """The links of which a part could not be read."""

    def client(self, service: str) -> Any:
        """Return the client of a service."""
        if service not in self._clients:
            self._clients[service] = self._make_client(service)
        return self._clients[service]

    def ask(
        self, service: str, operation: str, *missing: str, **arguments: Any
    ) -> dict[str, Any] | None:
        """Return the answer of a call, or None if it failed.

        A failure is noted, except for the error codes in `missing`, which mean that the thing asked
        for does not exist.
        """
        try:
            return dict(getattr(self.client(service), operation)(**arguments))
        except botocore.exceptions.ClientError as error:
            if error.response.get("Error", {}).get("Code", "") not in missing:
                self.unseen.append(f"{service} {operation}: {reason(error)}")
        except botocore.exceptions.NoCredentialsError:
            raise
        except botocore.exceptions.BotoCoreError as error:
            self.unseen.append(f"{service} {operation}: {reason(error)}")
        return None

    def pages(self, service: str, operation: str, key: str, **arguments: Any) -> Iterator[Any]:
        """Yield the items of an answer in pages."""
        while True:
            answer = self.ask(service, operation, **arguments)
            yield from (answer or {}).get(key, [])
            if not answer or not answer.get("IsTruncated"):
                return
            arguments["Marker"] = answer["Marker"]

    def add(self, name: str, kind: str, **properties: Any) -> Resource:
        """Add a resource; properties that are None are left out."""
        written = {key: value for key, value in properties.items() if value is not None}
        resource = Resource(name, kind, written)
        self.resources[name] = resource
        return resource

    def mark_partial(self, link: str, noted: int) -> None:
        """Mark a link as read in part if a call failed since `noted` failures were known."""
        if len(self.unseen) > noted:
            self.partial.add(link)

    def report(self, code: str, resource: str, evidence: str) -> None:
        """Add a hit of a rule that has no check of its own."""
        self.hits.append((code, Hit(resource, evidence)))
