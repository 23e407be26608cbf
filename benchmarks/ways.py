"""The ways to get a model file into memory: by hand, ours, and the peers'."""

import mmap
import os
import threading
import time
from typing import NamedTuple

from benchmarks import measure

NAME = "bench"


def plain(path):
    """`open(path, "rb").read()`."""
    with open(path, "rb") as file:
        return file.read()


def mapped(path):
    """mmap, every page touched, as lazy loaders do."""
    with open(path, "rb") as file:
        pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    sum(pages[:: mmap.PAGESIZE])
    return pages


def by_hand(threads, length):
    """Preadv of `length` bytes by `threads` threads with O_DIRECT, into one buffer."""

    def read(path):
        direct = getattr(os, "O_DIRECT", 0) if measure.Requests(path).counted else 0
        start = time.perf_counter()  # whoever writes it by hand knows what to use
        fd = os.open(path, os.O_RDONLY | direct)
        size = os.fstat(fd).st_size
        view = memoryview(
            mmap.mmap(
                -1,
                -(-size // mmap.PAGESIZE) * mmap.PAGESIZE,
                flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
            )
        )
        offsets, lock = iter(range(0, size, length)), threading.Lock()

        def work():
            while True:
                with lock:
                    offset = next(offsets, None)
                if offset is None:
                    return
                done, end = offset, min(offset + length, len(view))
                while done < min(end, size):
                    done += os.preadv(fd, [view[done:end]], done)

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        os.close(fd)
        return Timed(view[:size], time.perf_counter() - start)

    return read


def chunks(path, length=1 << 16):
    """`read(64 KiB)` in a loop, as copying and unpickling do.

    Only the kernel's readahead is ahead.
    """
    with open(path, "rb", buffering=0) as file:
        return list(iter(lambda: file.read(length), b""))


def large_chunks(path):
    """`read(1 MiB)` in a loop.

    More than the readahead, so the requests of a call run side by side.
    """
    return chunks(path, 1 << 20)


class Timed(NamedTuple):
    """What a reader timed itself."""

    kept: object
    seconds: float


def ours(path):
    """`files.read()` in the load function of a `model`, of the same file, as a handler has it."""
    from efsstate import model

    return model(NAME, load=lambda files: files.read(), root=os.path.dirname(path))()


def ours_alone(path):
    """The `files.read()` in it, without the look for the version and its manifest."""
    from efsstate import model

    def load(files):
        start = time.perf_counter()
        return Timed(files.read(), time.perf_counter() - start)

    return model(NAME, load=load, root=os.path.dirname(path))()


def _touched(size):
    """Return `size` bytes of memory, each page of which is there already."""
    pages = memoryview(mmap.mmap(-1, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE))
    pages[:: mmap.PAGESIZE] = bytes(len(pages[:: mmap.PAGESIZE]))
    return pages


def plain_kept(path, length=0):
    """Fill a buffer that is kept and touched by `readinto`, at once or by `length` bytes."""
    size = os.path.getsize(path)
    view = _touched(size)[:size]
    start = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        filled = 0
        while count := file.readinto(view[filled : filled + (length or size)]):
            filled += count
    return Timed(view[:filled], time.perf_counter() - start)


def chunks_kept(path):
    """The same, 64 KiB a call."""
    return plain_kept(path, 1 << 16)


def ours_kept(path):
    """`files.read()` into memory that is kept and touched, in place of new pages."""
    from efsstate.modelstore import reader

    kept, fresh = _touched(os.path.getsize(path)), reader.buffer
    reader.buffer = lambda size: kept[: -(-size // mmap.PAGESIZE) * mmap.PAGESIZE]
    try:
        return ours_alone(path)
    finally:
        reader.buffer = fresh


def ours_pulled(path):
    """`files.mmap()`: all pages pulled into this host's memory, none touched."""
    from efsstate import model

    return model(NAME, load=lambda files: files.mmap(), root=os.path.dirname(path))()


def ours_mapped(path):
    """The same, with every page touched afterwards: that is what costs in the lab's guest."""
    pages = ours_pulled(path)
    sum(memoryview(pages)[:: mmap.PAGESIZE])
    return pages


def ours_tensors(path):
    """The recipe of docs/models.md: torch tensors that are views of `files.read()`'s buffer."""
    from examples.models.safetensors_torch import weights

    from efsstate import model

    return model(NAME, load=weights.__wrapped__, root=os.path.dirname(path))()


def safetensors_torch(path, **options):
    """`safetensors.torch.load_file`, and every page of every tensor touched: it maps the file."""
    from safetensors.torch import load_file

    tensors = load_file(path, **options)
    for tensor in tensors.values():
        tensor[:: mmap.PAGESIZE].sum()
    return tensors


def safetensors_torch_pread(path):
    """The same by `pread`, without a mapping; needs safetensors 0.8."""
    return safetensors_torch(path, backend="pread")


def safetensors_numpy(path, **options):
    """`safetensors.numpy.load_file`, which copies out of the mapping."""
    from safetensors.numpy import load_file

    return load_file(path, **options)


def safetensors_numpy_pread(path):
    """The same by `pread`."""
    return safetensors_numpy(path, backend="pread")


def streamer(path, keep=True):
    """Run:ai Model Streamer.

    Its tensors are windows of a buffer that it reuses, so they are cloned.
    """
    from runai_model_streamer import SafetensorsStreamer

    kept = {}
    with SafetensorsStreamer() as stream:
        stream.stream_file(path)
        for name, tensor in stream.get_tensors():
            kept[name] = tensor.clone() if keep else None
    return kept


def streamer_passing(path):
    """The same without the clone: nothing is left when it ends."""
    return streamer(path, keep=False)


def fast(path):
    """Fastsafetensors without a GPU."""
    from fastsafetensors import SafeTensorsFileLoader, SingleGroup

    loader = SafeTensorsFileLoader(SingleGroup(), device="cpu", nogds=True)
    loader.add_filenames({0: [path]})
    files = loader.copy_files_to_device()
    return {name: files.get_tensor(name).clone() for name in loader.get_keys()}


ALL = {
    "`read()`": (plain, ""),
    "`read(64 KiB)` in a loop": (chunks, ""),
    "`read(1 MiB)` in a loop": (large_chunks, ""),
    "mmap, every page touched": (mapped, ""),
    "`readinto()` a kept buffer": (plain_kept, ""),
    "`readinto()` a kept buffer, 64 KiB in a loop": (chunks_kept, ""),
    "efsstate `files.read()` into a kept buffer": (ours_kept, "efsstate"),
    "efsstate `files.read()`": (ours_alone, "efsstate"),
    "efsstate `model(…)()`, with `files.read()`": (ours, "efsstate"),
    "efsstate `model(…)()`, with `files.mmap()`": (ours_pulled, "efsstate"),
    "efsstate `model(…)()`, with `files.mmap()`, every page touched": (ours_mapped, "efsstate"),
    "efsstate `model(…)()`, torch tensors of a safetensors file": (ours_tensors, "efsstate"),
    "`safetensors.torch.load_file`": (safetensors_torch, "safetensors"),
    '`safetensors.torch.load_file(backend="pread")`': (safetensors_torch_pread, "safetensors"),
    "`safetensors.numpy.load_file`": (safetensors_numpy, "safetensors"),
    '`safetensors.numpy.load_file(backend="pread")`': (safetensors_numpy_pread, "safetensors"),
    "Run:ai Model Streamer, tensors kept (cloned)": (streamer, "runai-model-streamer"),
    "Run:ai Model Streamer, nothing kept": (streamer_passing, "runai-model-streamer"),
    "fastsafetensors": (fast, "fastsafetensors"),
}

# The file's pages reach the process by page faults, which the lab's guest makes dear.
MAPPED = {mapped, ours_mapped, safetensors_torch, safetensors_numpy}
MAPPED_NAMES = {name for name, (read, _) in ALL.items() if read in MAPPED}
BY_HAND = {
    f"by hand: {threads} {'threads' if threads > 1 else 'thread'} × {length} MiB": (
        by_hand(threads, length << 20),
        "",
    )
    for threads in (1, 2, 4, 8)
    for length in (2, 4, 8, 32, 128)
    # The file has 128 MiB: else some of the threads would have nothing to read.
    if threads * length <= 128
}

TENSORS = {
    ours_tensors,
    safetensors_torch,
    safetensors_torch_pread,
    safetensors_numpy,
    safetensors_numpy_pread,
    streamer,
    fast,
}  # these hand over tensors, which are looked at
SLOW = {
    mapped,
    ours_mapped,
    safetensors_torch,
    safetensors_torch_pread,
    safetensors_numpy,
    safetensors_numpy_pread,
    streamer,
    fast,
}
PLAIN = {plain, chunks, large_chunks, plain_kept, chunks_kept}  # seconds each, in the lab
