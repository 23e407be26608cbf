"""A lookup table: an LMDB file, published as a version and opened without its lock file."""

import lmdb

from efsstate import model


@model("my-embedding-index")
def index(files):
    # A local copy: LMDB maps its file, and each page that is touched would be a request.
    # lock=False: a version never changes, and nobody writes to it, so there is no lock file.
    table = lmdb.open(files.stage(), subdir=False, readonly=True, lock=False, max_dbs=0)
    # `files` keeps the copy in place while the table is used.
    return table, files


def look_up(key):
    table, _ = index()
    with table.begin() as transaction:
        return transaction.get(key.encode())
