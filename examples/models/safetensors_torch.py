"""PyTorch tensors over the buffer that was read, without the copy that load_file makes."""

import torch
from examples.models.safetensors_views import header

from efsstate import model

DTYPES = {
    "f8": torch.float64,
    "f4": torch.float32,
    "f2": torch.float16,
    "u2": torch.bfloat16,
    "i8": torch.int64,
    "i4": torch.int32,
    "i2": torch.int16,
    "i1": torch.int8,
    "u1": torch.uint8,
    "b1": torch.bool,
}


@model("my-weights")
def weights(files):
    buffer, tensors = files.read(), {}
    for name, dtype, shape, begin, end in header(buffer):
        kind = DTYPES[dtype.str[1:]]
        flat = (
            torch.frombuffer(buffer[begin:end], dtype=kind)
            if end > begin
            else torch.empty(0, dtype=kind)
        )
        tensors[name] = flat.reshape(shape)
    return tensors
