"""Tensors of a .safetensors file as views of one buffer; a hostile header is refused."""

import json
import math
import struct

import numpy as np

from efsstate import model

# bfloat16 is unknown to NumPy: take its bits as uint16, or use torch.frombuffer as in
# safetensors_torch.py
DTYPES = {
    "F64": "f8",
    "F32": "f4",
    "F16": "f2",
    "BF16": "u2",
    "I64": "i8",
    "I32": "i4",
    "I16": "i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


def header(buffer):
    """Yield (name, dtype, shape, first byte, end) of every tensor.

    Raise ValueError if it lies outside the buffer, or its size is wrong.
    """
    if len(buffer) < 8:
        raise ValueError("not a safetensors file: shorter than 8 bytes")
    (length,) = struct.unpack_from("<Q", buffer)
    data = 8 + length
    if length > 100_000_000 or data > len(buffer):
        raise ValueError(f"not a safetensors file: its header is {length} bytes long")
    for name, about in json.loads(bytes(buffer[8:data])).items():
        if name == "__metadata__":
            continue
        dtype, shape, (begin, end) = (
            np.dtype(DTYPES[about["dtype"]]),
            about["shape"],
            about["data_offsets"],
        )
        if (
            not all(isinstance(n, int) and n >= 0 for n in (begin, end, *shape))
            or not begin <= end <= len(buffer) - data
        ):
            raise ValueError(f"tensor {name!r}: it is not within the file")
        if math.prod(shape) * dtype.itemsize != end - begin:
            raise ValueError(f"tensor {name!r}: {shape} of {dtype} are not {end - begin} bytes")
        yield name, dtype, shape, data + begin, data + end


@model("my-weights")
def weights(files):
    buffer = files.read()
    return {
        name: np.frombuffer(buffer[begin:end], dtype).reshape(shape)
        for name, dtype, shape, begin, end in header(buffer)
    }
