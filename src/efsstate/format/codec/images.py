"""Encode images of Pillow by their pixels, and decode them."""

from __future__ import annotations

import sys

from efsstate.format.codec.wire import IMAGE, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.format.codec.wire import Encoder, In, Out

# Bits of a pixel, by mode; a row of mode "1" is filled up to a whole byte.
_BITS = {
    "1": 1, "L": 8, "P": 8, "LA": 16, "RGB": 24, "RGBA": 32, "RGBX": 32, "CMYK": 32, "YCbCr": 24,
    "HSV": 24, "LAB": 24, "I": 32, "F": 32, "I;16": 16,
}  # fmt: skip
# Attributes that `save` leaves behind.
_LEFT_BY_SAVE = {"encoderinfo", "encoderconfig", "_default_encoderinfo"}


def reason_against(value: Any) -> str:
    """Return why an image is more than its pixels, palette and info; "" if it is not."""
    image = sys.modules["PIL.Image"].Image
    own = vars(value)
    # MUT: an-image-has-no-attributes-of-its-own
    for name in own.keys() - vars(image()).keys() - _LEFT_BY_SAVE:
        if name != "format" or own[name] is not None:
            return f"it has the attribute {name!r}, which it would not have again; use its copy()"
    exif = own.get("_exif")
    if exif is None:
        return ""
    fresh = image()
    fresh.info = value.info
    # MUT: changed-exif-is-not-passed-over
    if dict(exif) != dict(fresh.getexif()) or exif.tobytes() != fresh.getexif().tobytes():
        return "its Exif data was changed; use its copy(), with info['exif'] = exif.tobytes()"
    return ""


def _encode_image(value: Any, out: Out) -> object:
    why = reason_against(value)
    if why:
        raise refusal(value, why)
    if value.mode not in _BITS:
        raise refusal(value, f"its mode {value.mode} is not known")
    palette = [value.palette.mode, bytes(value.palette.palette)] if value.palette else None
    data = value.tobytes()
    info = out.prepare(value.info)
    out.arrays.append(data)
    # Palettes have several forms, so such an image is compared with the one that will be read.
    if palette is not None and _build(value.mode, value.size, palette, value.info, data) != value:
        raise refusal(value, "its palette would not come back as it is")
    return out.mark(IMAGE, value.mode, list(value.size), palette, info, len(data))


def _build(mode: str, size: Any, palette: Any, info: Any, data: Any) -> Any:
    library = sys.modules.get("PIL.Image")
    if library is None:
        raise ValueError("PIL.Image is not imported")
    width, height = size
    # The memory for the pixels is taken before the data is looked at: 20 bytes must not ask for
    # 2 GiB.
    # MUT: an-image-has-its-bytes
    if width < 0 or height < 0 or -(-width * _BITS[mode] // 8) * height != len(data):
        raise ValueError("an image's size")
    image = library.frombytes(mode, (width, height), bytes(data))
    if palette is not None:
        image.putpalette(palette[1], palette[0])
    image.info = info
    return image


ENCODERS: dict[int, Encoder] = {IMAGE: _encode_image}


def _decode_image(
    into: In, mode: str, size: list[int], palette: Any, info: Any, nbytes: int
) -> Any:
    return _build(mode, size, palette, info, into.take(nbytes))


DECODERS: dict[int, Callable[..., Any]] = {IMAGE: _decode_image}
