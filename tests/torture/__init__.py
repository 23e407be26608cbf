"""The long tests: `python -m tests.torture`; a short form of each part is in test_short.py."""


class Skip(Exception):
    """This machine has not what the part needs; the words say what."""
