"""A table in Parquet, read by column: in place, because a few columns are a part of the file."""

import pyarrow.parquet

from efsstate import model


@model("my-features")
def features(files):
    # In place: Parquet has its columns one after the other, so only those of the call are read.
    # From a staged copy all bytes would have been read first.
    return pyarrow.parquet.ParquetFile(files.path, pre_buffer=False, buffer_size=1 << 20)


def column(name):
    return features().read(columns=[name], use_threads=False)[name]
