"""Scale the pages' grey values, once for each page, whichever worker does it."""

import io

import numpy as np

from efsstate import dataset

STEP = "scaled-v1"  # raise it when the preparation changes


def handler(event, context):
    """Prepare the pages of a snapshot that have no result yet."""
    raw, clean = dataset("digits/raw"), dataset("digits/clean")
    prepared = 0
    for part in raw.freeze(event["snapshot"]).todo(clean, STEP):
        with np.load(part.path) as page, clean.part(".npz", key=part.result_key(STEP)) as path:
            np.savez(path, images=page["images"] / np.float32(16), labels=page["labels"])
        prepared += path.part.added
    return {"prepared": prepared}


def arrays(data):
    """Return the images and labels of a part's bytes."""
    with np.load(io.BytesIO(data)) as page:
        return page["images"], page["labels"]
