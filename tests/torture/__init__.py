"""The long tests: `python -m tests.torture`; a short form of each part is in test_short.py."""


class Skip(Exception):  # noqa: N818 - it is no error
    """This machine has not what the part needs; the words say what."""
