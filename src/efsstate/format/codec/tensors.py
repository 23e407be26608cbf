"""Encode tensors of torch that lie in the memory of the CPU, and decode them."""

from __future__ import annotations

import sys

from efsstate.format.codec.wire import TENSOR, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.format.codec.wire import Encoder, In, Out

# The bytes of an item, by the dtype's name.
_WIDTHS = {
    "bool": 1, "uint8": 1, "int8": 1, "uint16": 2, "int16": 2, "uint32": 4, "int32": 4, "uint64": 8,
    "int64": 8, "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "complex32": 4,
    "complex64": 8, "complex128": 16, "float8_e4m3fn": 1, "float8_e4m3fnuz": 1, "float8_e5m2": 1,
    "float8_e5m2fnuz": 1,
}  # fmt: skip


def reason_against(value: Any) -> str:
    """Return why a tensor is more than its items; "" if it is not."""
    if value.device.type != "cpu":
        return f"it lies in the memory of {value.device}; use its cpu()"
    if not str(value.layout).endswith("strided") or value.is_nested:
        return "it is sparse or nested; use its to_dense()"
    if dtype_name(value) not in _WIDTHS:
        return f"its dtype {value.dtype} is not known"
    if value.grad_fn is not None or value.grad is not None:
        return "it has gradients; use its detach()"
    if vars(value):
        return "it has attributes of its own; use its clone()"
    return ""


def dtype_name(value: Any) -> str:
    """Return the dtype's name in torch."""
    return str(value.dtype).removeprefix("torch.")


def content(value: Any) -> Any:
    """Return the items' bytes in C order; of a contiguous tensor they are not copied."""
    torch = sys.modules["torch"]
    flat = value.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else b""


def _encode_tensor(value: Any, out: Out) -> object:
    why = reason_against(value)
    if why:
        raise refusal(value, why)
    data = content(value)
    if len(data):
        out.arrays.append(data)
    return out.mark(TENSOR, dtype_name(value), list(value.shape), value.requires_grad)


ENCODERS: dict[int, Encoder] = {TENSOR: _encode_tensor}


def _decode_tensor(into: In, dtype: str, shape: list[int], requires_grad: bool) -> Any:
    torch = sys.modules.get("torch")
    if torch is None:
        raise ValueError("torch is not imported")
    count = 1
    for size in shape:
        if type(size) is not int or size < 0:
            raise ValueError("a tensor's shape")
        count *= size
    raw = into.take(count * _WIDTHS[dtype])
    kind = getattr(torch, dtype)
    if not raw.nbytes:
        tensor = torch.empty(shape, dtype=kind)
    else:
        # Constraint: a bool that is neither 0 nor 1 is undefined behaviour in torch.
        if dtype == "bool" and bytes(raw).strip(b"\x00\x01"):
            raise ValueError("a tensor's bools")
        flat = torch.frombuffer(bytearray(raw) if raw.readonly else raw, dtype=kind)
        if flat.data_ptr() % _WIDTHS[dtype]:
            flat = torch.frombuffer(bytearray(raw), dtype=kind)
        tensor = flat.reshape(shape)
    return tensor.requires_grad_() if requires_grad else tensor


DECODERS: dict[int, Callable[..., Any]] = {TENSOR: _decode_tensor}
