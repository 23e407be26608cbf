"""Add links and a badge to the package's metadata, where it is built on a forge: Hatchling's hook.

A release is built by the workflow publish.yml, which knows the repository's address. There the
description, which the package index shows, gets absolute links, a badge, and the commands that
install from the index; and the project gets its addresses. Elsewhere the description is README.md
as it is, because nothing is known of any address.
"""

from __future__ import annotations

import os
import re
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_INSTALL = (
    ("run `pip install .` in a clone. Then", "run `pip install efsstate`. Then"),
    ("efsstate is not on PyPI yet. Install it from a clone, or build", "Install it, or build"),
    ("pip install .   ", "pip install efsstate   "),
)
_LINK = re.compile(r"(!?\[[^\]]*\])\((?![a-z]+:|#)([^)\s]+)\)")


class Metadata(MetadataHookInterface):
    """The hook; pyproject.toml names it, and `readme` and `urls` as dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the description and the addresses."""
        with open(os.path.join(self.root, "README.md"), encoding="utf-8") as file:
            text = file.read()
        address = repository(os.environ)
        if address:
            text = published(text, address, metadata["version"])
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        metadata["urls"] = urls(address) if address else {}


def repository(environment: Any) -> str:
    """Return the address of the repository whose workflow runs here; "" elsewhere."""
    server, name = (environment.get(f"GITHUB_{each}") for each in ("SERVER_URL", "REPOSITORY"))
    return f"{server}/{name}" if server and name else ""


def urls(address: str) -> dict[str, str]:
    """Return the project's addresses, by their labels."""
    return {
        "Homepage": address,
        "Documentation": f"{address}/tree/main/docs",
        "Changelog": f"{address}/blob/main/CHANGELOG.md",
        "Issues": f"{address}/issues",
    }


def published(text: str, address: str, version: str) -> str:
    """Return the README as the index shows it: what it says of a clone is of the index there.

    Raise ValueError if the README has not the words that are to be replaced.
    """
    for before, after in _INSTALL:
        if before not in text:
            raise ValueError(f"README.md: {before!r} is not in it; change scripts/metadata.py too")
        text = text.replace(before, after)
    text = re.sub(r"pip install '\.(\[\w+\])'", r"pip install 'efsstate\1'", text)
    text = re.sub(r"<!-- .*? -->\n", "", text)
    text = _LINK.sub(rf"\1({address}/blob/v{version}/\2)", text)
    workflow = f"{address}/actions/workflows/test.yml"
    title, _, rest = text.partition("\n")
    return f"{title}\n\n[![tests]({workflow}/badge.svg)]({workflow})\n{rest}"
