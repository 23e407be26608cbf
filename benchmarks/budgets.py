"""The budgets that the project set itself, and which figure answers each."""

from typing import NamedTuple

from benchmarks import subjects


class Budget(NamedTuple):
    what: str
    budget: str
    reached: object  # figures -> (text, whether it is kept), or None where that was not measured


class Figures:
    """Figures by row, place and subject."""

    def __init__(self, result):
        self.all = [figure for run in result["runs"] for figure in run["figures"]]

    def get(self, row, place, subject):
        """The figure, {} where there is none."""
        return next(
            (f for f in self.all if (f["row"], f["place"], f["subject"]) == (row, place, subject)),
            {},
        )

    def rows(self, row, place):
        return [f for f in self.all if (f["row"], f["place"]) == (row, place)]


CACHED, CACHE, CHECKPOINT, MODEL = (
    "efsstate `cached`",
    "efsstate `Cache`",
    "efsstate `checkpoint`",
    "efsstate `files.read()`",
)
# Requests to the server; the tests in tests/nfs/test_budgets.py hold the code to the same numbers.
REQUESTS = {
    "hit": (CACHED, 3),
    "first": (CACHED, 3.5),
    "put": (CACHE, 4),
    "miss": (CACHED, 12),
    "save": (CHECKPOINT, 6),
    "save, nothing to remove": (CHECKPOINT, 5),
    "load": (CHECKPOINT, 3),
    "load after a save": (CHECKPOINT, 6),
}


def _requests(row):
    subject, most = REQUESTS[row]

    def reached(figures):
        got = figures.get(row, "nfs", subject).get("requests")
        return None if got is None else (f"{got:.3g}", round(got, 2) <= most)

    return reached


def _local_hit(figures):
    """Compare decorators with decorators.

    A store that is asked by a key of its own is named, and not counted.
    """
    ours, beside = figures.get("hit", "local", CACHED), figures.rows("hit", "local")
    peers = {
        f["subject"]: f["ratio"]
        for f in beside
        if "ratio" in f and not f["subject"].startswith(("efsstate", "bare"))
    }
    if "ratio" not in ours:
        return None
    decorators = {
        subject.name for subject in subjects.PEERS if issubclass(subject, subjects.Function)
    }
    faster = {name: ratio for name, ratio in peers.items() if ratio < ours["ratio"]}
    text = f"{ours['ratio']:.2f} × bare"
    if bare := figures.get("hit", "local", subjects.Floor.name).get("time"):
        text += (
            f", {ours['time']['median'] * 1e6:.1f} µs where its system calls take"
            f" {bare['median'] * 1e6:.1f}"
        )
    if peers:
        slower = "not " * bool(decorators & set(faster))
        text += f"; {slower}faster than every decorator among the peers"
    if stores := {name: ratio for name, ratio in faster.items() if name not in decorators}:
        ratios = ", ".join(f"{name} {ratio:.1f} ×" for name, ratio in stores.items())
        text += f"; stores without a decorator, a digest of arguments or a checksum: {ratios}"
    return text, ours["ratio"] <= 3 and not decorators & set(faster)


def _memory(figures):
    ours = figures.get("memory", "local", CACHED).get("ratio")
    return None if ours is None else (f"{ours:.2f} ×", ours <= 1.5)


PLAIN = ("`read()`", "`read(64 KiB)` in a loop", "`read(1 MiB)` in a loop")
HEAVY = {"filelock", "cachetools", "msgpack", "asyncio", "numpy", "boto3"}


def _imports(figures):
    ours = figures.get("import", "process", "`from efsstate import cached, checkpoint, model`")
    if not ours:
        return None
    heavy = sorted(HEAVY & {name.split(".")[0] for name in ours["names"]})
    foreign = [name for name in ours["names"] if not name.startswith("efsstate")]
    text = (
        f"{ours['modules']} modules, {len(foreign)} of the standard library;"
        f" {ours['ratio']:.2f} × the time of `import filelock`"
    )
    return text + (f"; loads {', '.join(heavy)}" if heavy else "; none of these"), not heavy


def _model(figures):
    """Return the fastest plain `read()`.

    Of 64 KiB or 1 MiB in a loop, or of the whole file at once.
    """
    ours = figures.get("model", "nfs", MODEL)
    if "rate" not in ours:
        return None
    rates = {f["subject"]: f.get("rate") for f in figures.rows("model", "nfs")}
    tuned = ours["of_tuned"]
    plain = {name: ours["rate"] / rates[name] for name in PLAIN if rates.get(name)}
    peers = {
        name: rates[full]
        for name, full in {
            "the streamer": "Run:ai Model Streamer, tensors kept (cloned)",
            "the streamer where it keeps nothing": "Run:ai Model Streamer, nothing kept",
            "fastsafetensors": "fastsafetensors",
            "safetensors": "`safetensors.numpy.load_file`",
        }.items()
        if rates.get(full)
    }
    text = (
        ", ".join(f"{ratio:.1f} × {name}" for name, ratio in plain.items())
        + f"; {tuned:.2f} of hand-tuned; "
    )
    text += "".join(f"{ours['rate'] / rate:.1f} × {name}; " for name, rate in peers.items())
    return f"{text}{ours['copies']:.2f} copies", min(plain.values()) >= 6 and tuned >= 0.95 and (
        ours["rate"] >= max(peers.values(), default=0)
    ) and ours["copies"] <= 1.1


def _resume(figures):
    ours = figures.get("resume", "local", CHECKPOINT).get("time")
    return None if ours is None else (f"{ours['median'] * 1e6:.2f} µs", ours["median"] < 2e-6)


def _map(figures):
    faster = figures.get("map", "local", CHECKPOINT).get("faster")
    return None if faster is None else (f"{faster:.1f} × a loop", faster >= 7)


def _sweep(key, text, entries, most):
    def reached(figures):
        rows = [
            f
            for f in figures.all
            if f["row"] == "sweep"
            and f["subject"] == "efsstate sweep"
            and f.get("entries", 0) >= entries
        ]
        got = max((f[key] for f in rows if f.get(key) is not None), default=None)
        return None if got is None else (text.format(got), got <= most)

    return reached


def _flat(figures):
    """Compare system calls in memory and requests on NFS: the same number at each size.

    The folders that a first look opens are not counted.
    """
    texts, kept = [], True
    for place, key, suffix in (("local", "calls", " calls"), ("nfs", "requests", "")):
        for name in ("hit", "put", "miss"):
            found = {
                f["entries"]: f[key]
                for f in figures.rows("flat", place)
                if f.get("operation") == name + suffix and key in f
            }
            if found:
                low, high = min(found.values()), max(found.values())
                kept = kept and high - low <= 0.5
                number = f"{low:.3g}" if high - low < 0.005 else f"{low:.3g} to {high:.3g}"
                texts.append(
                    f"{name} {number} {'requests' if place == 'nfs' else 'system calls'} up to "
                    f"{max(found):,}"
                )
    return ("; ".join(texts), kept) if texts else None


def _many(figures):
    got = figures.get("many", "nfs", "efsstate `map`").get("ratio")
    return None if got is None else (f"{got:.1f} ×", got >= 8)


BUDGETS = [
    Budget("hit of another client's 1 KiB entry, warm directory", "3 requests", _requests("hit")),
    Budget(
        "the first 256 different hits of a fresh environment, every path lookup included",
        "3.5 requests each",
        _requests("first"),
    ),
    Budget("put of 1 KiB", "4 requests", _requests("put")),
    Budget("miss, alone: look, claim, compute, put, release", "12 requests", _requests("miss")),
    Budget("hit, put and miss from 1,000 entries on", "the same to 1,000,000", _flat),
    Budget("`map` over a link of 3 ms", "at least 8 × a loop", _many),
    Budget(
        "checkpoint save of 1 KiB, with its fencing check",
        "5 requests",
        _requests("save, nothing to remove"),
    ),
    Budget("the same, with the removal of what is beyond `keep`", "6 requests", _requests("save")),
    Budget("load of a checkpoint, warm directory", "3 requests", _requests("load")),
    Budget("load after another host's save", "6 requests", _requests("load after a save")),
    Budget("`job.map`, 8 workers, items that wait 10 ms", "at least 7 × a loop", _map),
    Budget(
        "sweep of live entries, 100,000 or more",
        "0.05 requests each",
        _sweep("requests_each", "{:.3f}", 100_000, 0.05),
    ),
    Budget(
        "hit on tmpfs, 1 KiB, through the decorator",
        "at most 3 × bare open-read-close, faster than every peer",
        _local_hit,
    ),
    Budget(
        "hit in memory, short string argument, immutable result",
        "at most 1.5 × `cachetools.cached` with a lock",
        _memory,
    ),
    Budget(
        "`from efsstate import cached, checkpoint, model`",
        f"none of {', '.join(sorted(HEAVY))}",
        _imports,
    ),
    Budget(
        "model read over NFS at 128 KiB readahead",
        "at least 6 × `read()`, 0.95 of hand-tuned `preadv`, as fast as Run:ai Model Streamer, "
        "fastsafetensors and safetensors, memory of at most 1.1 × the file",
        _model,
    ),
    Budget("`resume`", "under 2 µs an item between saves", _resume),
    Budget(
        "sweep of a million entries",
        "under 64 MiB of memory",
        _sweep("memory_mib", "{:.0f} MiB", 1_000_000, 64),
    ),
]
