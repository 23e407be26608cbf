"""The keys of frames, series and scalars of pandas, polars' frames, Pillow's images and tensors.

They count by their content: how a library lays it out in memory, such as the chunks of a column or
the bytes under a missing value, does not show. No library is imported here.
"""

from __future__ import annotations

import sys
from array import array

from efsstate.cache.key_encoding import (
    LARGE,
    UnstableError,
    encode,
    encode_raw,
    encode_text,
    encode_tuple,
    new_hash,
    unstable,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from efsstate.cache.key_encoding import Add, Encoder


def _digest_items(rows: Iterable[Any], depth: int) -> bytes:
    """Return the digest of the values in `rows`, which are pieces of a column."""
    h = new_hash()
    for values in rows:
        encode_tuple(values, h.update, depth)
    return bytes(h.digest())


def _refuse_column(dtype: object) -> UnstableError:
    return UnstableError(f"a column of dtype {dtype}", "the dtype has no stable form", "")


# pandas

_SIZES = (8, 16, 32, 64)
_MASKED = {
    "BooleanDtype", "Float32Dtype", "Float64Dtype",
    *[f"{sign}{size}Dtype" for sign in ("Int", "UInt") for size in _SIZES],
}  # fmt: skip


def _refuse_attributes(value: Any) -> None:
    from efsstate.format.codec import frames

    # MUT: a-frame-has-no-attributes-of-its-own
    for name in frames.own_attributes(value):
        raise unstable(value, f"it has the attribute {name!r} too; use its attrs, or a copy()")


def _encode_pandas(value: Any, add: Add, depth: int) -> None:
    _refuse_attributes(value)
    add(b"Lp")
    encode_tuple((value.attrs, value.flags.allows_duplicate_labels), add, depth)
    # MUT: an-index-counts
    _encode_index(value.index, add, depth)
    if type(value).__name__ == "Series":
        encode_tuple((value.name,), add, depth)
        _encode_column(value.array, add, depth)
        return
    add(b"f")
    _encode_index(value.columns, add, depth)
    for at in range(len(value.columns)):
        _encode_column(value.iloc[:, at].array, add, depth)


def _encode_moment(value: Any, add: Add, depth: int) -> None:
    """Encode a Timestamp or a Timedelta, to its nanosecond and with its unit."""
    add(b"Lm")
    zone = (value.tzinfo, value.fold) if type(value).__name__ == "Timestamp" else ()
    encode_tuple((type(value).__name__, value.asm8, *zone), add, depth)


def _encode_missing(value: Any, add: Add, depth: int) -> None:
    add(b"Ln")
    encode_text(type(value).__name__, add, depth)


def _encode_period(value: Any, add: Add, depth: int) -> None:
    add(b"Ld")
    encode_tuple((value.ordinal, value.freqstr), add, depth)


def _encode_interval(value: Any, add: Add, depth: int) -> None:
    add(b"Lv")
    encode_tuple((value.left, value.right, value.closed), add, depth)


def _encode_category(dtype: Any, add: Add, depth: int) -> None:
    add(b"Lc")
    encode_tuple((bool(dtype.ordered), dtype.categories is None), add, depth)
    if dtype.categories is not None:
        _encode_index(dtype.categories, add, depth)


def _encode_index(index: Any, add: Add, depth: int) -> None:
    kind = type(index)
    if kind.__module__.partition(".")[0] != "pandas":
        raise unstable(index, "it is an index of a class of its own")
    add(b"x")
    encode_tuple((kind.__name__, *index.names, getattr(index, "freqstr", None)), add, depth)
    if kind.__name__ == "RangeIndex":
        encode_tuple((index.start, index.stop, index.step), add, depth)
    elif kind.__name__ == "MultiIndex":
        for level, codes in zip(index.levels, index.codes, strict=True):
            _encode_index(level, add, depth)
            encode(codes, add, depth)
    else:
        _encode_column(index.array, add, depth)


def _encode_column(column: Any, add: Add, depth: int) -> None:
    dtype = column.dtype
    kind = type(dtype).__name__
    if kind == "NumpyEADtype" or type(dtype).__module__.partition(".")[0] == "numpy":
        _encode_plain_column(column.to_numpy(), add, depth)
        return
    encode_text(kind, add, depth)
    if kind == "CategoricalDtype":
        encode_tuple((bool(dtype.ordered),), add, depth)
        _encode_index(dtype.categories, add, depth)
        encode(column.codes, add, depth)
    elif kind == "DatetimeTZDtype":
        encode_tuple((dtype.tz,), add, depth)
        encode(column.tz_convert(None).to_numpy(), add, depth)
    elif kind == "StringDtype":
        encode_tuple((dtype.storage, type(dtype.na_value).__name__), add, depth)
        _encode_plain_column(column.to_numpy(dtype=object, na_value=None), add, depth)
    elif kind in _MASKED:
        # The number under a missing value is not the column's.
        encode(column.isna(), add, depth)
        encode(column.to_numpy(dtype=dtype.numpy_dtype, na_value=0), add, depth)
    else:
        raise _refuse_column(dtype)


def _encode_plain_column(items: Any, add: Add, depth: int) -> None:
    if items.dtype.kind != "O":
        encode(items, add, depth)
        return
    add(b"o%d:" % len(items))
    rows = (items[at : at + LARGE].tolist() for at in range(0, len(items), LARGE))
    add(_digest_items(rows, depth))


# polars

_TYPECODES = {
    "Boolean": "B", "Int8": "b", "Int16": "h", "Int32": "i", "Int64": "q", "UInt8": "B",
    "UInt16": "H", "UInt32": "I", "UInt64": "Q", "Float32": "f", "Float64": "d",
}  # fmt: skip


def _encode_polars(value: Any, add: Add, depth: int) -> None:
    _refuse_attributes(value)
    add(b"Lo")
    if type(value).__name__ == "Series":
        _encode_series(value, add, depth)
        return
    add(b"f")
    encode_tuple(value.shape, add, depth)
    for series in value.get_columns():
        _encode_series(series, add, depth)


def _encode_series(series: Any, add: Add, depth: int) -> None:
    # MUT: a-columns-dtype-counts
    encode_tuple((series.name, len(series), _describe(series.dtype)), add, depth)
    if _name_of(series.dtype) == "Categorical":  # its numbers are this process's own
        physical = series.cast(sys.modules["polars"].String)
    else:  # a time's datetime would lose nanoseconds
        physical = series.to_physical()
    pieces = (physical[at : at + LARGE] for at in range(0, len(physical), LARGE))
    code = _TYPECODES.get(_name_of(physical.dtype))
    if code is None:
        add(_digest_items((piece.to_list() for piece in pieces), depth))
        return
    h = new_hash()
    zero = False if _name_of(physical.dtype) == "Boolean" else 0
    for piece in pieces:
        # The bytes in the place of a missing value are arbitrary: hash zero instead.
        # MUT: a-missing-value-is-not-a-zero
        h.update(bytes(piece.is_null().to_list()))
        h.update(array(code, piece.fill_null(zero).to_list()))
    add(bytes(h.digest()))


def _name_of(dtype: Any) -> str:
    return str(dtype.base_type().__name__)


def _describe(dtype: Any, *, is_inner: bool = False) -> object:
    """Return a description that no other dtype has."""
    name = _name_of(dtype)
    if name in ("Object", "Unknown") or (is_inner and name == "Categorical"):
        raise _refuse_column(dtype)
    parameters = {} if isinstance(dtype, type) else vars(dtype)
    return name, {key: _describe_parameter(dtype, item) for key, item in parameters.items()}


def _describe_parameter(dtype: Any, item: Any) -> object:
    polars = sys.modules["polars"]
    if item is None or type(item) in (str, int, bool, tuple):
        return item
    if isinstance(item, polars.Series):
        return item.to_list()
    if isinstance(item, list):
        return [(field.name, _describe(field.dtype, is_inner=True)) for field in item]
    if isinstance(item, (polars.DataType, type)):
        return _describe(item, is_inner=True)
    if type(item).__name__ == "Categories" and item.is_global():
        return ()
    raise _refuse_column(dtype)


# Pillow


def _encode_image(value: Any, add: Add, depth: int) -> None:
    from efsstate.format.codec import images

    why = images.reason_against(value)
    if why:
        raise unstable(value, why)
    add(b"Li")
    palette = value.palette and (value.palette.mode, bytes(value.palette.palette))
    # MUT: an-images-mode-counts
    encode_tuple((value.mode, value.size, palette, value.info), add, depth)
    encode_raw(b"b", value.tobytes(), add)


def _refuse_image(value: Any, _add: Add, _depth: int) -> None:
    # Constraint: a file's image has more than its pixels, such as other frames.
    raise unstable(value, "it is a file's image; pass its copy(), or the bytes of the file")


# torch


def _encode_tensor(value: Any, add: Add, depth: int) -> None:
    from efsstate.format.codec import tensors

    why = tensors.reason_against(value)
    if why:
        raise unstable(value, why)
    add(b"Lt")
    dtype = tensors.dtype_name(value)
    encode_tuple((dtype, tuple(value.shape), value.requires_grad), add, depth)
    encode_raw(b"b", tensors.content(value), add)


_BY_NAME: tuple[tuple[str, str, Encoder], ...] = (
    ("pandas", "DataFrame", _encode_pandas),
    ("pandas", "Series", _encode_pandas),
    ("pandas", "Timestamp", _encode_moment),
    ("pandas", "Timedelta", _encode_moment),
    ("pandas", "Period", _encode_period),
    ("pandas", "Interval", _encode_interval),
    ("pandas", "CategoricalDtype", _encode_category),
    ("polars", "DataFrame", _encode_polars),
    ("polars", "Series", _encode_polars),
    ("PIL.Image", "Image", _encode_image),
    ("torch", "Tensor", _encode_tensor),
)


def find(kind: type) -> Encoder | None:
    """Return the encoder of a type of these libraries; None of any other."""
    for module, name, encoder in _BY_NAME:
        if kind is getattr(sys.modules.get(module), name, None):
            return encoder
    pandas = sys.modules.get("pandas")
    if kind in (type(getattr(pandas, "NaT", None)), type(getattr(pandas, "NA", None))):
        return _encode_missing
    image = getattr(sys.modules.get("PIL.Image"), "Image", None)
    return _refuse_image if image is not None and issubclass(kind, image) else None
