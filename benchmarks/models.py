"""The model rows: one large file, written by a, read by b into memory by each way there is, with a cold cache each time."""

import contextlib
import importlib
import mmap
import os
import resource
import statistics
import threading
import time
from typing import NamedTuple

from benchmarks import measure

SIZE, TENSORS = 128 << 20, 8
RANGE, THREADS = 8 << 20, 8
NAME = "bench"


def write(path):
    """A safetensors file of SIZE bytes of tensors, so that every reader can read it; and the same, published."""
    import numpy
    from efsstate import publish
    from safetensors.numpy import save_file

    random = numpy.random.default_rng(1)
    tensors = {f"t{i}": random.integers(0, 255, SIZE // TENSORS, dtype=numpy.uint8) for i in range(TENSORS)}
    save_file(tensors, path)
    publish(NAME, path, root=os.path.dirname(path))


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


def tuned(path):
    """By hand: 8 MiB preadv by 8 threads with O_DIRECT, into one buffer."""
    direct = getattr(os, "O_DIRECT", 0) if measure.Requests(path).counted else 0
    fd = os.open(path, os.O_RDONLY | direct)
    size = os.fstat(fd).st_size
    view = memoryview(
        mmap.mmap(-1, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    )
    offsets, lock = iter(range(0, size, RANGE)), threading.Lock()

    def work():
        while True:
            with lock:
                offset = next(offsets, None)
            if offset is None:
                return
            done, end = offset, min(offset + RANGE, len(view))
            while done < min(end, size):
                done += os.preadv(fd, [view[done:end]], done)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(fd)
    return view[:size]


def chunks(path):
    """`read(64 KiB)` in a loop, as copying and unpickling do: nothing but the kernel's readahead goes ahead."""
    with open(path, "rb", buffering=0) as file:
        return list(iter(lambda: file.read(1 << 16), b""))


class Timed(NamedTuple):
    """What a reader timed itself."""

    kept: object
    seconds: float


def ours(path):
    """`model(name, load=lambda files: files.read())()` of the same file, published: what a handler writes."""
    from efsstate import model

    return model(NAME, load=lambda files: files.read(), root=os.path.dirname(path))()


def ours_alone(path):
    """The `files.read()` in it, without the look for the version and its manifest."""
    from efsstate import model

    def load(files):
        start = time.perf_counter()
        return Timed(files.read(), time.perf_counter() - start)

    return model(NAME, load=load, root=os.path.dirname(path))()


def ours_mapped(path):
    """`files.mmap()`, every page touched afterwards."""
    from efsstate import model

    pages = model(NAME, load=lambda files: files.mmap(), root=os.path.dirname(path))()
    sum(memoryview(pages)[:: mmap.PAGESIZE])
    return pages


def safetensors_torch(path):
    """`safetensors.torch.load_file`, and every page of every tensor touched: it maps the file."""
    from safetensors.torch import load_file

    tensors = load_file(path)
    for tensor in tensors.values():
        tensor[:: mmap.PAGESIZE].sum()
    return tensors


def safetensors_numpy(path):
    """`safetensors.numpy.load_file`: it reads the whole file, then copies."""
    from safetensors.numpy import load_file

    return load_file(path)


def streamer(path, keep=True):
    """Run:ai Model Streamer; its tensors are windows of a buffer that it reuses, so what is to live on is cloned."""
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
    """fastsafetensors without a GPU."""
    from fastsafetensors import SafeTensorsFileLoader, SingleGroup

    loader = SafeTensorsFileLoader(SingleGroup(), device="cpu", nogds=True)
    loader.add_filenames({0: [path]})
    files = loader.copy_files_to_device()
    return {name: files.get_tensor(name).clone() for name in loader.get_keys()}


ALL = {
    "`read()`": (plain, ""),
    "`read(64 KiB)` in a loop": (chunks, ""),
    "mmap, every page touched": (mapped, ""),
    "8 MiB `preadv` × 8 threads, O_DIRECT, by hand": (tuned, ""),
    "efsstate `files.read()`": (ours_alone, "efsstate"),
    "efsstate `model(…)()`, with `files.read()`": (ours, "efsstate"),
    "efsstate `model(…)()`, with `files.mmap()`": (ours_mapped, "efsstate"),
    "`safetensors.torch.load_file`": (safetensors_torch, "safetensors"),
    "`safetensors.numpy.load_file`": (safetensors_numpy, "safetensors"),
    "Run:ai Model Streamer, tensors kept (cloned)": (streamer, "runai-model-streamer"),
    "Run:ai Model Streamer, nothing kept": (streamer_passing, "runai-model-streamer"),
    "fastsafetensors": (fast, "fastsafetensors"),
}


SLOW = {mapped, ours_mapped, safetensors_torch, safetensors_numpy, streamer, fast}


def prepare(folder):
    """Import what takes part, once, before the clock starts: loading is measured, not importing. What is missing fails at its turn."""
    for name in ("torch", "safetensors.torch", "safetensors.numpy", "runai_model_streamer", "fastsafetensors"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    from efsstate import model, publish

    with open(f"{folder}/small", "wb") as file:
        file.write(b"x")
    publish("small", f"{folder}/small", root=folder)
    model("small", load=lambda files: (files.read(), files.mmap()), root=folder)()


def cold(path):
    """Have nothing of the file in this host's page cache."""
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("1")
    except OSError:
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def one(name, path, requests):
    """One read of the file in a process of its own: rate, memory, requests."""
    read = ALL[name][0]
    cold(path)
    before, memory = requests.settled(), _resident()
    start = time.perf_counter()
    kept = read(path)
    seconds = kept.seconds if isinstance(kept, Timed) else time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    after = requests.settled()
    yield {
        "seconds": seconds,
        "copies": (peak - memory) / SIZE,
        "requests": sum(after.values()) - sum(before.values()),
        "kept": bool(len(kept)),
    }


def _resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE


def rows(a, b, requests, *, rounds=8):
    """Every way in turn, `rounds` times (the slow ones every fourth), each in a process of its own; rate and ratio (to `read()`) are of the best round."""
    prepare(a)
    write(f"{a}/model.safetensors")
    found = {name: [] for name in ALL}
    failed = {}
    for turn in range(rounds):
        for name, (read, _) in ALL.items():
            if name not in failed and not (read in SLOW and turn % 4):
                items = measure.isolated(one, name, f"{b}/model.safetensors", requests)
                if "failed" in items[-1]:
                    failed[name] = items[-1]["failed"]
                else:
                    found[name].append(items[-1])
    for name, samples in found.items():
        if name in failed:
            yield {"row": "model", "subject": name, "failed": failed[name]}
            continue
        # The best of each: another's work on this machine takes time from what is bound by the processor, not from what waits.
        best = min(s["seconds"] for s in samples)
        yield {
            "row": "model", "subject": name, "time": measure.spread([s["seconds"] for s in samples]),
            "rate": SIZE / best, "copies": max(s["copies"] for s in samples),
            "ratio": min(s["seconds"] for s in found["`read()`"]) / best,
            "requests": statistics.median(s["requests"] for s in samples) if requests.counted else None,
        }  # fmt: skip
