"""Bugs on purpose, for workers: a check that none of these makes red shows nothing."""


def no_fencing():
    """A save does not look whether its claim was taken over."""
    from efsstate.checkpoints.protocol import CheckpointFolder

    CheckpointFolder._require_top = lambda *_: None


def stale_reads():
    """`fresh` is content with what this process remembers."""
    from efsstate import Cache

    find = Cache._find
    Cache._find = lambda self, digest, **_: find(self, digest)


def leak():
    """Every read of the cache leaves a descriptor and some memory behind."""
    import os

    from efsstate import Cache

    get, left = Cache.get, []

    def leaking(self, *args, **options):
        left.append((os.open("/dev/null", os.O_RDONLY), bytes(100_000)))
        return get(self, *args, **options)

    Cache.get = leaking
