"""Encode frames and series of pandas and polars as Arrow streams, and decode them.

Arrow does not keep all that a frame can hold, such as an index of a class of its own. So a frame is
read back at once, and refused unless it is the same.
"""

from __future__ import annotations

import sys
from datetime import UTC
from io import BytesIO

from efsstate.format import codec
from efsstate.format.codec.wire import FRAME, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.format.codec.wire import Encoder, In, Out

_PANDAS, _POLARS = "pandas", "polars"
_COLUMN = "0"  # of a series, whose name stands beside it


def _library(name: str) -> Any:
    """Return a library that is imported already; `ValueError` if it is not."""
    module = sys.modules.get(name)
    if module is None:
        raise ValueError(f"{name} is not imported")
    return module


# Encoding


def _encode_frame(value: Any, out: Out) -> object:
    kind = type(value)
    library = kind.__module__.partition(".")[0]
    is_series = kind.__name__ == "Series"
    write, read, is_same = _WAYS[library]
    names = own_attributes(value)
    if names:
        raise refusal(value, f"it has the attribute {names[0]!r} too")
    try:
        frame = value.to_frame(_COLUMN) if library == _PANDAS and is_series else value
        frame = value.to_frame() if library == _POLARS and is_series else frame
        steps = _steps(frame) if library == _PANDAS else []
        data = memoryview(write(frame))
        is_exact = is_same(frame, read(data, *steps))
    except Exception as error:
        reason = f"Arrow does not take it: {type(error).__name__}: {error}"
        raise refusal(value, reason) from error
    if not is_exact:
        raise refusal(value, "Arrow does not give it back as it is")
    name = out.prepare(value.name) if is_series else None
    out.arrays.append(data)
    return out.mark(FRAME, library, is_series, name, data.nbytes, *steps)


def own_attributes(value: Any) -> list[str]:
    """Return the names of the attributes that were set on a frame or a series by hand."""
    # An accessor such as `str` is set by its use.
    accessors = getattr(type(value), "_accessors", ())
    return sorted(
        name for name in vars(value) if not name.startswith("_") and name not in accessors
    )


def _steps(frame: Any) -> list[str | None]:
    """Return the `freq` of the index and of the columns as text, which Arrow does not keep."""
    indexes = frame.index, frame.columns
    kinds = ("DatetimeIndex", "TimedeltaIndex")  # that of a PeriodIndex is its dtype
    steps = [index.freqstr if type(index).__name__ in kinds else None for index in indexes]
    return steps if any(steps) else []


def _write_pandas(frame: Any) -> Any:
    arrow = _library("pyarrow")
    table = arrow.Table.from_pandas(frame)
    sink = arrow.BufferOutputStream()
    with arrow.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def _write_polars(frame: Any) -> Any:
    stream = BytesIO()
    frame.write_ipc(stream, compression="uncompressed")
    return stream.getvalue()


def _is_same_pandas(first: Any, second: Any) -> bool:
    if not first.equals(second) or first.attrs != second.attrs or first.attrs:
        return False
    if first.flags.allows_duplicate_labels != second.flags.allows_duplicate_labels:
        return False
    if not _is_same_index(first.index, second.index):
        return False
    if not _is_same_index(first.columns, second.columns):
        return False
    return all(
        _is_same_dtype(dtype, second.dtypes.iloc[at])
        and (str(dtype) != "object" or _are_same(first.iloc[:, at], second.iloc[:, at]))
        for at, dtype in enumerate(first.dtypes)
    )


def _is_same_index(first: Any, second: Any) -> bool:
    if type(first) is not type(second) or not first.equals(second):
        return False
    if not _is_same_dtype(first.dtype, second.dtype) or not _are_same(first.names, second.names):
        return False
    if type(first).__name__ == "MultiIndex":  # its levels may have members that no row has
        pairs = zip(first.levels, second.levels, strict=True)
        return all(_is_same_index(*pair) for pair in pairs)
    # MUT: the-freq-of-an-index-is-kept
    if getattr(first, "freq", None) != getattr(second, "freq", None):
        return False
    return str(first.dtype) != "object" or _are_same(first, second)


def _is_same_dtype(first: Any, second: Any) -> bool:
    if first != second:
        return False
    zones = [getattr(dtype, "tz", None) for dtype in (first, second)]
    # MUT: a-zone-of-a-frame-has-its-type
    if type(zones[0]) is not type(zones[1]) or repr(zones[0]) != repr(zones[1]):
        return False  # pandas takes two for equal if they have one name
    before, after = [getattr(dtype, "categories", None) for dtype in (first, second)]
    return before is after or _is_same_index(before, after)


def _are_same(first: Any, second: Any) -> bool:
    """Return True if the objects are the same to the codec: `==` takes 1.1 and 1.10 for equal."""
    # MUT: objects-of-a-frame-are-compared-exactly
    return _bytes_of(first) == _bytes_of(second)


def _bytes_of(items: Any) -> list[bytes]:
    parts = codec.dumps(list(items))
    return [bytes(part) for part in (parts if isinstance(parts, list) else [parts])]


def _is_same_polars(first: Any, second: Any) -> bool:
    return bool(first.equals(second)) and first.schema == second.schema


ENCODERS: dict[int, Encoder] = {FRAME: _encode_frame}


# Decoding


def _read_pandas(data: Any, *steps: Any) -> Any:
    arrow = _library("pyarrow")
    table = arrow.ipc.open_stream(arrow.py_buffer(data)).read_all()
    table.validate(full=True)
    # An extension type may be code: one of pyarrow's own was a pickle until version 14.
    # MUT: no-extension-type-is-read
    if any(isinstance(field.type, arrow.BaseExtensionType) for field in table.schema):
        raise ValueError("an extension type")
    frame = table.to_pandas().copy()
    for at, dtype in enumerate(frame.dtypes):
        if _is_utc(dtype):
            frame.isetitem(at, frame.iloc[:, at].dt.tz_convert(UTC))
    frame.index, frame.columns = _in_utc(frame.index), _in_utc(frame.columns)
    for name, step in zip(("index", "columns"), steps, strict=bool(steps)):
        if step is not None:
            getattr(frame, name).freq = step
    return frame


def _in_utc(index: Any) -> Any:
    """Return the index with the zone that pandas itself uses for UTC: Arrow has its name alone."""
    if type(index).__name__ == "MultiIndex":
        if not any(_is_utc(level.dtype) for level in index.levels):
            return index
        return index.set_levels([_in_utc(level) for level in index.levels])
    return index.tz_convert(UTC) if _is_utc(index.dtype) else index


def _is_utc(dtype: Any) -> bool:
    return str(getattr(dtype, "tz", None)) == "UTC"


def _read_polars(data: Any) -> Any:
    return _library(_POLARS).read_ipc(BytesIO(data))


_WAYS: dict[str, tuple[Any, Any, Any]] = {
    _PANDAS: (_write_pandas, _read_pandas, _is_same_pandas),
    _POLARS: (_write_polars, _read_polars, _is_same_polars),
}


def _decode_frame(
    into: In, library: str, is_series: bool, name: Any, nbytes: int, *steps: Any
) -> Any:
    _library(library)
    _, read, _ = _WAYS[library]
    try:
        frame = read(bytes(into.take(nbytes)), *steps)
    except BaseException as error:
        # A panic of Rust code is no Exception, and bad bytes must be a miss.
        if isinstance(error, Exception) or type(error).__name__ != "PanicException":
            raise
        raise ValueError("its Arrow stream is damaged") from None
    if not is_series:
        return frame
    if library == _POLARS:
        return frame.to_series(0).alias(name)
    series = frame[_COLUMN]
    series.name = name
    return series


DECODERS: dict[int, Callable[..., Any]] = {FRAME: _decode_frame}
