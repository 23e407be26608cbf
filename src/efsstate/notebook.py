"""Show an object as a table in a notebook: what `_repr_html_` of reports and statuses returns."""

from __future__ import annotations

import html

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def table(caption: str, rows: Iterable[tuple[str, object]]) -> str:
    """Return an HTML table with a row for each name and value; all text is escaped."""
    cells = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td>{html.escape(_text(value))}</td></tr>"
        for name, value in rows
    )
    caption = html.escape(caption)
    return f"<table><caption style='text-align:left'>{caption}</caption>{cells}</table>"


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int):
        return str(value)
    return f"{value:,}"
