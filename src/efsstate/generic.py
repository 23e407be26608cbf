"""Make a class generic for type checkers, without the 5 ms that `typing` costs a cold start.

As in `T = TypeVar("T")` and `class Box(Generic[T])`; `Box[int]` works at run time too.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Generic

    from typing_extensions import TypeVar  # with `default=`, which every type checker knows

    __all__ = ["Generic", "TypeVar"]
else:
    from types import GenericAlias

    class Generic:
        """Stand in for `typing.Generic` as a base class."""

        __slots__ = ()
        __class_getitem__ = classmethod(GenericAlias)

    def TypeVar(name, **_options):  # noqa: ANN001, ANN003, ANN201, N802 - it stands in for a class
        """Stand in for `typing.TypeVar`: return the name, since nothing is checked at run time."""
        return name
