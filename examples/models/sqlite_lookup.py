"""A lookup table: an SQLite file, published as a version and opened immutable."""

import sqlite3
import urllib.parse

from efsstate import model


@model("my-lexicon")
def lexicon(files):
    # A local copy: SQLite reads pages one by one, and each would be a request to the server.
    # immutable: a version never changes, so SQLite takes no locks, which NFS serves slowly.
    address = f"file:{urllib.parse.quote(files.stage())}?mode=ro&immutable=1"
    # `files` keeps the copy in place while the connection is used.
    return sqlite3.connect(address, uri=True, check_same_thread=False), files


def look_up(word):
    connection, _ = lexicon()
    row = connection.execute("SELECT meaning FROM words WHERE word = ?", [word]).fetchone()
    return None if row is None else row[0]
