"""Widen a namespace's policy, by which the sweep goes, to cover the results of a put."""

from __future__ import annotations

TYPE_CHECKING = False
