"""Encode frames and series of pandas and polars as Arrow streams, and decode them.

Arrow does not keep all that a frame can hold, such as an index of a class of its own. So a frame is
read back at once, and refused unless it is the same.
"""

from __future__ import annotations

import sys
from io import BytesIO

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
    try:
        frame = value.to_frame(_COLUMN) if library == _PANDAS and is_series else value
        frame = value.to_frame() if library == _POLARS and is_series else frame
        data = memoryview(write(frame))
        is_exact = is_same(frame, read(data))
    except Exception as error:
        reason = f"Arrow does not take it: {type(error).__name__}: {error}"
        raise refusal(value, reason) from error
    if not is_exact:
        raise refusal(value, "Arrow does not give it back as it is")
    name = out.prepare(value.name) if is_series else None
    out.arrays.append(data)
    return out.mark(FRAME, library, is_series, name, data.nbytes)


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
    if list(first.dtypes) != list(second.dtypes):
        return False
    for name in ("index", "columns"):
        before, after = getattr(first, name), getattr(second, name)
        is_same = type(before) is type(after) and before.dtype == after.dtype
        if not is_same or list(before.names) != list(after.names) or not before.equals(after):
            return False
    columns = [at for at, dtype in enumerate(first.dtypes) if dtype.kind == "O"]
    return all(
        list(map(type, first.iloc[:, at])) == list(map(type, second.iloc[:, at])) for at in columns
    )


def _is_same_polars(first: Any, second: Any) -> bool:
    return bool(first.equals(second)) and first.schema == second.schema


ENCODERS: dict[int, Encoder] = {FRAME: _encode_frame}


# Decoding


def _read_pandas(data: Any) -> Any:
    arrow = _library("pyarrow")
    table = arrow.ipc.open_stream(arrow.py_buffer(data)).read_all()
    table.validate(full=True)
    # An extension type may be code: one of pyarrow's own was a pickle until version 14.
    # MUT: no-extension-type-is-read
    if any(isinstance(field.type, arrow.BaseExtensionType) for field in table.schema):
        raise ValueError("an extension type")
    return table.to_pandas().copy()


def _read_polars(data: Any) -> Any:
    return _library(_POLARS).read_ipc(BytesIO(data))


_WAYS: dict[str, tuple[Any, Any, Any]] = {
    _PANDAS: (_write_pandas, _read_pandas, _is_same_pandas),
    _POLARS: (_write_polars, _read_polars, _is_same_polars),
}


def _decode_frame(into: In, library: str, is_series: bool, name: Any, nbytes: int) -> Any:
    _library(library)
    _, read, _ = _WAYS[library]
    try:
        frame = read(bytes(into.take(nbytes)))
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
