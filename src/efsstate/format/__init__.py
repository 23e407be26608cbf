"""The bytes and the names on the mount: entries, codecs, places. Nothing here does I/O."""
