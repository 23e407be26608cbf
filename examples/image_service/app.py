"""The image-analysis service: a Lambda handler that reads the text in an image."""

import base64

import ocr

from efsstate import cached, invocation, model

reader = model(
    "ocr", load=lambda files: ocr.Reader(files.path)
)  # loaded at the first image that has to be computed


@cached(name="ocr-text", version=1, ttl="30d")  # raise the version when you publish another model
def text_of(image: bytes) -> list[tuple[str, float]]:
    """Return the lines of text in an image, with their scores: computed once for all functions."""
    return reader()(image)


@invocation
def handler(event, context):
    return {"lines": text_of(base64.b64decode(event["image"]))}
