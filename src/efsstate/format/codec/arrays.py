"""Encode numpy arrays and scalars, and decode them."""

from __future__ import annotations

import sys

from efsstate.format.codec.wire import ARRAY, SCALAR, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.format.codec.wire import Encoder, In, Out


# Encoding


def _describe_dtype(value: Any) -> Any:
    """Return a description of the dtype, from which `numpy.dtype` makes the same again."""
    dtype = value.dtype
    if not dtype.hasobject and dtype.kind != "T":
        spec = dtype.str if dtype.names is None else _listed(dtype.descr)
        if _decode_dtype(spec) == dtype and dtype.metadata is None:
            return spec
    raise refusal(value, f"its dtype {dtype} does not survive on its own")


def _listed(part: Any) -> Any:
    """Return the description of a structured dtype with lists for tuples."""
    return [_listed(inner) for inner in part] if isinstance(part, (list, tuple)) else part


def _described(fields: Any) -> Any:
    """Return what `_listed` made as the list of tuples that `numpy.dtype` takes."""
    return [
        (
            name,
            _described(kind) if isinstance(kind, list) else kind,
            *(tuple(size) for size in shape),
        )
        for name, kind, *shape in fields
    ]


def _encode_array(value: Any, out: Out) -> object:
    dtype = _describe_dtype(value)
    fortran = value.flags.f_contiguous and not value.flags.c_contiguous
    import numpy as np

    flat = np.ascontiguousarray(value.T if fortran else value).reshape(-1)
    if flat.nbytes:
        out.arrays.append(flat.view(np.uint8).data)
    return out.mark(ARRAY, dtype, list(value.shape), fortran)


def _encode_scalar(value: Any, out: Out) -> object:
    if isinstance(value, str):  # numpy drops the zeros at its end, and reads no empty one
        return out.mark(SCALAR, "U", str.__str__(value))
    if isinstance(value, bytes):
        return out.mark(SCALAR, "S", bytes(value))
    return out.mark(SCALAR, _describe_dtype(value), value.tobytes())


ENCODERS: dict[int, Encoder] = {ARRAY: _encode_array}


def find_encoder(value: Any) -> Encoder | None:
    """Return the encoder of a numpy scalar; None for any other value."""
    numpy = sys.modules.get("numpy")
    kind = type(value)
    if numpy is not None and issubclass(kind, numpy.generic) and kind.__module__ == "numpy":
        return _encode_scalar
    return None


# Decoding


def _decode_dtype(spec: Any) -> Any:
    import numpy as np

    dtype = np.dtype(_described(spec) if isinstance(spec, list) else str(spec))
    if dtype.hasobject:
        raise ValueError("an array of objects")
    return dtype


def _decode_array(into: In, spec: Any, shape: list[int], fortran: bool) -> Any:
    import numpy as np

    dtype = _decode_dtype(spec)
    count = 1
    for size in shape:
        if type(size) is not int or size < 0:
            raise ValueError("an array's shape")
        count *= size
    raw = into.take(count * dtype.itemsize)
    if not raw.nbytes:
        return np.empty(shape, dtype, order="F" if fortran else "C")
    flat = np.frombuffer(raw, dtype)
    if raw.readonly or not flat.flags.aligned:
        flat = flat.copy()  # the caller may change its array
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def _decode_scalar(_: In, spec: Any, raw: Any) -> Any:
    import numpy as np

    if spec in ("U", "S"):
        kind, plain = (np.str_, str) if spec == "U" else (np.bytes_, bytes)
        if type(raw) is not plain:
            raise ValueError("a scalar's kind")
        return kind(raw)
    dtype = _decode_dtype(spec)
    # MUT: a-scalar-has-its-bytes
    if len(raw) != dtype.itemsize:  # 20 bytes must not ask for 2 GiB
        raise ValueError("a scalar's length")
    # A structured scalar is a view: of a copy, because the caller may change it.
    return np.frombuffer(raw, dtype, 1).copy()[0] if raw else np.zeros(1, dtype)[0]


DECODERS: dict[int, Callable[..., Any]] = {ARRAY: _decode_array, SCALAR: _decode_scalar}
