"""Load a scikit-learn pipeline that joblib wrote, mapped from a local copy that processes share."""

import joblib

from efsstate import model


@model("my-pipeline")
def pipeline(files):
    # joblib's files are pickles: whoever may write to the mount runs code here. Sign what you
    # publish, or keep the folder to yourself.
    return joblib.load(files.stage(), mmap_mode="r")
