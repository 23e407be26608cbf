"""A tokenizer from one file of a published folder."""

from tokenizers import Tokenizer

from efsstate import model


@model("my-tokenizer")
def tokenizer(files):
    return Tokenizer.from_buffer(bytes(files.read("tokenizer.json")))
