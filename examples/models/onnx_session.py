"""Give ONNX Runtime the path of a local copy, made in parallel.

A model may have its weights in files beside it.
"""

import onnxruntime

from efsstate import model


@model("my-classifier")
def classifier(files):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2  # a function's vCPUs: memory / 1,769 MB
    return onnxruntime.InferenceSession(files.stage(), options, providers=["CPUExecutionProvider"])
