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


def _describe(value: Any) -> Any:
    """Return a description of the value's dtype, from which `_build` makes exactly the same."""
    dtype = value.dtype
    if dtype.hasobject or dtype.kind == "T":
        raise refusal(value, f"items of dtype {dtype} are objects")
    try:
        spec = _spec(dtype)
        is_exact = _is_same(_build(spec), dtype)
    except (TypeError, ValueError):
        is_exact = False
    if not is_exact:
        raise refusal(value, f"its dtype {dtype} does not survive on its own")
    return spec


def _spec(dtype: Any) -> Any:
    if dtype.metadata is not None:
        raise ValueError("metadata")
    if dtype.subdtype is not None:
        return [_spec(dtype.subdtype[0]), list(dtype.subdtype[1])]
    if dtype.names is None:
        # A long double has another precision on another machine, under one name.
        return f"{dtype.str}/{_precision()}" if dtype.char in "gG" else dtype.str
    fields = [dtype.fields[name] for name in dtype.names]
    return {
        "names": list(dtype.names),
        "formats": [_spec(field[0]) for field in fields],
        "offsets": [field[1] for field in fields],
        "titles": [field[2] if len(field) > 2 else None for field in fields],
        "itemsize": dtype.itemsize,
        "aligned": bool(dtype.isalignedstruct),
        "record": dtype.type.__name__ == "record",
    }


def _precision() -> int:
    import numpy as np

    return int(np.finfo(np.longdouble).nmant)


def _is_same(first: Any, second: Any) -> bool:
    """Return True if the dtypes are equal in all that their items and their users can see."""
    if first != second or first.type is not second.type or first.metadata != second.metadata:
        return False
    if first.isalignedstruct != second.isalignedstruct:
        return False
    if first.subdtype is not None:
        return _is_same(first.subdtype[0], second.subdtype[0])
    return all(_is_same(first[name], second[name]) for name in first.names or ())


def _without_padding(flat: Any) -> Any:
    """Return long doubles with zeros in the bytes that belong to no number."""
    if flat.dtype.char not in "gG" or _precision() != 63:
        return flat
    import numpy as np

    flat = flat.copy()
    flat.view(np.uint8).reshape(-1, 16)[:, 10:] = 0
    return flat


def _encode_array(value: Any, out: Out) -> object:
    dtype = _describe(value)
    fortran = value.flags.f_contiguous and not value.flags.c_contiguous
    if value.nbytes:  # a copy makes room for a character in items of texts without one
        import numpy as np

        flat = np.ascontiguousarray(value.T if fortran else value).reshape(-1)
        out.arrays.append(_without_padding(flat).view(np.uint8).data)
    return out.mark(ARRAY, dtype, list(value.shape), fortran)


def _encode_scalar(value: Any, out: Out) -> object:
    if isinstance(value, str):  # numpy drops the zeros at its end, and reads no empty one
        return out.mark(SCALAR, "U", str.__str__(value))
    if isinstance(value, bytes):
        return out.mark(SCALAR, "S", bytes(value))
    spec = _describe(value)
    import numpy as np

    # A structured scalar is a view: it can be hashed only if it cannot be written.
    is_writable = type(value).__name__ in ("void", "record") and bool(value.flags.writeable)
    data = _without_padding(np.asarray(value).reshape(1)).tobytes()
    return out.mark(SCALAR, spec, data, is_writable)


ENCODERS: dict[int, Encoder] = {ARRAY: _encode_array}


def find_encoder(value: Any) -> Encoder | None:
    """Return the encoder of a numpy scalar; None for any other value."""
    numpy = sys.modules.get("numpy")
    kind = type(value)
    if numpy is None or not issubclass(kind, numpy.generic):
        return None
    # A class that is derived from a scalar's holds more than its dtype says.
    return _encode_scalar if kind in (numpy.str_, numpy.bytes_, value.dtype.type) else None


# Decoding


def _build(spec: Any) -> Any:
    import numpy as np

    if isinstance(spec, list):
        inner, shape = spec
        dtype = np.dtype((_build(inner), tuple(shape)))
    elif isinstance(spec, dict):
        fields: Any = {key: spec[key] for key in ("names", "offsets", "itemsize", "aligned")}
        fields["formats"] = [_build(inner) for inner in spec["formats"]]
        if any(title is not None for title in spec["titles"]):
            fields["titles"] = spec["titles"]
        dtype = np.dtype(fields)
        dtype = np.dtype((np.record, dtype)) if spec["record"] else dtype
    else:
        name, _, precision = str(spec).partition("/")
        dtype = np.dtype(name)
        # MUT: a-long-double-of-another-machine-is-not-read
        if dtype.char in "gG" and precision != str(_precision()):
            raise ValueError("a long double of another machine")
    return dtype


def _decode_dtype(spec: Any) -> Any:
    dtype = _build(spec)
    if dtype.hasobject or _spec(dtype) != spec:
        raise ValueError("an array's dtype")
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
        # Constraint: `np.empty` makes room in such texts, too.
        return np.ndarray(shape, dtype, order="F" if fortran else "C")
    flat = np.frombuffer(raw, dtype)
    if raw.readonly or not flat.flags.aligned:
        flat = flat.copy()  # the caller may change its array
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def _decode_scalar(_: In, spec: Any, raw: Any, is_writable: bool = False) -> Any:
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
    if not raw:
        return np.zeros(1, dtype)[0]
    items = np.frombuffer(raw, dtype, 1)
    return items.copy()[0] if is_writable else items[0]


DECODERS: dict[int, Callable[..., Any]] = {ARRAY: _decode_array, SCALAR: _decode_scalar}
