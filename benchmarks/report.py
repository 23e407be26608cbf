"""Write the tables in Markdown, benchmarks/README.md, and the JSON beside it."""

import json
import os
import textwrap

from benchmarks import chart, tables_answers, tables_time, ways
from benchmarks.budgets import BUDGETS, Figures
from benchmarks.text import NONE, count, faults, seconds, spread, table


def operation(figures, row, failed="hits"):
    """Yield the rows of one operation.

    Requests, times, system calls, and the ratio to the floor's time.
    """
    names = list(
        dict.fromkeys(
            f["subject"]
            for f in figures.all
            if f["row"] in (row, failed) and f["place"] in ("nfs", "local")
        )
    )
    floor = figures.get(row, "nfs", "bare system calls").get("time")
    lines = []
    for name in names:
        nfs, local = figures.get(row, "nfs", name), figures.get(row, "local", name)
        if not nfs and not local:
            nfs = figures.get(failed, "nfs", name)
        elif not nfs:
            nfs = {
                key: value
                for key, value in figures.get(failed, "nfs", name).items()
                if key == "failed"
            }
        calls = figures.get(f"{row} calls", "local", name)
        if not (nfs or local):
            continue
        lines.append(
            [
                name,
                count(nfs.get("requests")),
                faults(nfs) or (spread(nfs["time"]) if "time" in nfs else NONE),
                f"{nfs['time']['median'] / floor['median']:.2g}"
                if floor and "time" in nfs and not faults(nfs)
                else NONE,
                count(calls.get("calls")),
                count(calls.get("allocator")),
                count(local.get("page_faults")),
                faults(local) or (spread(local["time"]) if "time" in local else NONE),
                count(local.get("ratio")) if not faults(local) else NONE,
            ]
        )
    return table(
        [
            "",
            "NFS: requests",
            "NFS: time",
            "× bare",
            "memory: system calls",
            "of the allocator",
            "page faults",
            "memory: time",
            "× bare",
        ],
        lines,
    )


def simple(figures, row, place, *columns):
    """Rows of one place with the columns given as (header, figure -> text)."""
    lines = [
        [
            f["subject"],
            *(
                [faults(f)] + [NONE] * (len(columns) - 1)
                if faults(f)
                else [show(f) for _, show in columns]
            ),
        ]
        for f in figures.rows(row, place)
    ]
    return table(["", *[header for header, _ in columns]], lines)


def budgets(figures):
    lines = []
    for one in BUDGETS:
        got = one.reached(figures)
        lines.append(
            [
                one.what,
                one.budget,
                *((got[0], "yes" if got[1] else "**no**") if got else ("not measured", NONE)),
            ]
        )
    return table(["what", "budget", "reached", "kept"], lines)


def sections(result):
    """(title, note, table) of everything that was measured."""
    figures = Figures(result)
    time = ("time", lambda f: spread(f["time"]))
    yield "Budgets", "", budgets(figures)
    yield (
        "How fast a hit is, and what each cache gets wrong",
        (
            "In one row, from the tables below. A hit is of 1 KiB: in a lean process in memory, as "
            "a multiple of bare open-read-close, and on NFS in requests. Then: 32 flipped bits of "
            "stored values; eight cold callers of one key on two NFS clients; puts that were "
            "acknowledged on NFS and are lost after a SIGKILL of the writer, and of two writers; "
            "increments of one number by two clients. An empty field: it has no such operation."
        ),
        tables_answers.summary(figures),
    )
    yield (
        "Hit",
        (
            "An entry of 1 KiB, put by client a, read by client b for the first time, in folders "
            "that b knows. Without the memory tier."
        ),
        operation(figures, "hit"),
    )
    yield (
        "Hit in a lean process",
        (
            "Bare Python that imported nothing but the cache, in memory; written by another "
            "process. Time is the median, and the ratio that of the smallest samples, ten hits "
            "each, in turn with the bare calls. System calls, the allocator's, and page faults are "
            "of one hit, and modules those that the cache brings. On Lambda's runtime client: as "
            "`efsstate.testing` runs it."
        ),
        tables_time.lean(figures),
    )
    yield (
        "The first 256 different hits of a fresh environment",
        "Opening the cache and every path lookup included; requests are an average.",
        operation(figures, "first"),
    )
    yield "Put", "1 KiB under a new key.", operation(figures, "put", "writes")
    yield (
        "Miss, alone",
        (
            "Look, claim, compute, put, release. The peers that have no claim just look, compute "
            "and "
            "put."
        ),
        operation(figures, "miss", "writes"),
    )
    yield (
        "In a namespace of so many entries",
        (
            "Requests on NFS and system calls in memory, each an average of 64; times in memory. A "
            "put and a miss make a folder's listing longer, never read it."
        ),
        flat(figures),
    )
    yield (
        "Many hits at once, over a link of 3 ms",
        (
            "64 entries that this client has never read, an entry's share; the ratio is the best "
            "of five rounds."
        ),
        simple(
            figures,
            "many",
            "nfs",
            time,
            ("× a loop", lambda f: f"{f['ratio']:.1f}"),
            ("requests each", lambda f: count(f.get("requests"))),
        ),
    )
    yield (
        "Hit in memory",
        (
            "Of 1 KiB by one argument of the kind named, and of a list of ten strings; as a "
            "multiple of `cachetools.cached` with a lock, in turn with it, of the smallest "
            "samples. Then: for how many of `1`, `True` and `1.0` another's answer comes back, "
            "whether callers share what they are given and change, and the bytes of memory an "
            "entry of 16 bytes takes, key and value included."
        ),
        tables_time.memory(figures),
    )
    yield (
        "Cold start",
        (
            "The first of each operation in a new environment on Lambda's runtime client, as "
            "`efsstate.testing` runs it: the smallest time and the modules loaded. What is there "
            "before: for hit, miss, claim, load and model the three names are imported; for a save "
            "the checkpoint is claimed. Without bytecode: the package as source on a read-only "
            "disk, as unpacked wheels are there. The ratio is the median of the ratios to the lock "
            "of the same round."
        ),
        tables_time.cold(figures),
    )
    yield (
        "A result of 100 MB",
        (
            "A NumPy array, put by one process and read by another, until a byte of each page was "
            "touched; the smallest time of each, and the ratio of these. Returned: until the call "
            "returned. On NFS over 3 ms, written by a and read by b with a cold cache; there page "
            "faults of the lab's guest inflate every time."
        ),
        tables_time.large(figures),
    )
    yield (
        "First hit of an entry of middle size",
        "Requests over NFS, with a cold cache, in folders that the client knows.",
        tables_time.middle(figures),
    )
    yield (
        "Eight cold callers on one key",
        (
            "How often the value is computed; each computation takes half a second. One is what a "
            "cache is for."
        ),
        tables_answers.stampede(figures),
    )
    yield (
        "One flipped bit in the stored value",
        "A new environment then asks for it.",
        tables_answers.flipped(figures),
    )
    yield (
        "Arguments that look alike",
        "Whether each call gets the answer to its own arguments.",
        tables_answers.confusion(figures),
    )
    yield (
        "What survives of what was acknowledged",
        (
            "A put is acknowledged when the call returned. Killed: the writer, by SIGKILL, at a "
            "random put, four times, on NFS twice. Two writers: 100 other keys each, at once. "
            "Counter: 50 increments of one number each, at once. On NFS the writers are on two "
            "clients, and client b reads. That a machine loses power is not tried here."
        ),
        tables_answers.survival(figures),
    )
    yield (
        "Checkpoint: save of 1 KiB",
        (
            "Ours is fenced and keeps history; removal of what is beyond `keep` included. The "
            "others "
            "only write."
        ),
        operation(figures, "save", "checkpoint"),
    )
    yield "Checkpoint: load, nothing new", "", operation(figures, "load", "checkpoint")
    yield (
        "Checkpoint: load after another host's save",
        "",
        operation(figures, "load after a save", "checkpoint"),
    )
    yield (
        (
            "Checkpoint: loads right after an acknowledged save of the other client that give an "
            "older state"
        ),
        "The second column: while something on the reader's host has the files open.",
        simple(
            figures,
            "stale",
            "nfs",
            ("nobody has it open", lambda f: f"{f['closed']} of {f['loads']}"),
            ("a reader has it open", lambda f: f"{f['open']} of {f['loads']}"),
        ),
    )
    yield (
        "Acknowledged updates of one counter by two clients, 100 each",
        (
            "`lost_updates.py`. Readers on both clients keep what they have read open for a "
            "second, "
            "as a backup or a dashboard does."
        ),
        tables_answers.updates(figures),
    )
    yield (
        "Checkpoint: claim and release",
        "For the others: a lock taken and given back.",
        operation(figures, "claim", "checkpoint"),
    )
    yield (
        "Checkpoint: `resume`, one item between saves",
        "The others just loop.",
        simple(figures, "resume", "local", time),
    )
    yield (
        "Imports",
        (
            "In a fresh interpreter without `site`; time is the ratio to `import filelock` of the "
            "same round."
        ),
        simple(
            figures,
            "import",
            "process",
            ("modules", lambda f: f["modules"]),
            time,
            ("× `import filelock`", lambda f: count(f["ratio"])),
        ),
    )
    rate = ("MiB/s", lambda f: f"{f['rate'] / 2**20:.0f}")
    yield (
        "Model read over NFS",
        (
            "128 MiB, written by a, read by b with a cold cache, readahead 128 KiB, each in a "
            "process of its own. Rate and ratio are of the best round, time is the median. Copies: "
            "the growth of the process's memory over the file's size. In the lab's guest a fresh "
            "page of memory is dear, as the head of this page says: that slows down every way into "
            "new memory, and `read()`, which fills its buffer twice, the most. The rows of mapped "
            "files, which take a fault for each page, are inflated by it many times over, and say "
            "nothing of how a mapped file does on a real kernel. Those into a kept buffer, which "
            "was touched beforehand, are without it."
        ),
        simple(
            figures,
            "model",
            "nfs",
            ("", lambda f: "mapped" if f["subject"] in ways.MAPPED_NAMES else ""),
            time,
            rate,
            ("× `read()`", lambda f: count(f["ratio"])),
            ("copies", lambda f: f"{f['copies']:.2f}"),
            ("requests", lambda f: count(f["requests"])),
        ),
    )
    yield (
        "The same by hand",
        (
            "`preadv` with O_DIRECT into one buffer, MiB/s of the best round. More threads take "
            "the "
            "processor from each other: in the lab's guest there is one."
        ),
        by_hand(figures),
    )
    yield "Sweep", SWEEP, sweeps(figures)


def by_hand(figures):
    """Threads by ranges."""
    rates = {f["subject"]: f["rate"] for f in figures.rows("model by hand", "nfs") if "rate" in f}
    mixes = {
        tuple(name.removeprefix("by hand: ").split(" × ")): rate for name, rate in rates.items()
    }
    lengths = list(dict.fromkeys(length for _, length in mixes))
    return table(
        ["", *lengths],
        [
            [
                threads,
                *(
                    f"{mixes[threads, length] / 2**20:.0f}" if (threads, length) in mixes else NONE
                    for length in lengths
                ),
            ]
            for threads in dict.fromkeys(threads for threads, _ in mixes)
        ],
    )


def flat(figures):
    lines = []
    for place, unit in (("nfs", "NFS: requests"), ("local", "memory: system calls")):
        found = {(f["entries"], f["operation"]): f for f in figures.rows("flat", place)}
        for entries in dict.fromkeys(entries for entries, _ in found):
            ones = [found.get((entries, name), {}) for name in ("hit", "put", "miss")]
            calls = [one.get("requests") for one in ones]
            if place == "local":
                calls = [
                    found.get((entries, f"{name} calls"), {}).get("calls")
                    for name in ("hit", "put", "miss")
                ]
            times = [
                faults(one) or (seconds(one["time"]["median"]) if "time" in one else NONE)
                for one in ones
            ]
            lines.append([f"{entries:,}", unit, *map(count, calls), *times])
    return table(
        ["entries", "counted", "hit", "put", "miss", "hit: time", "put: time", "miss: time"], lines
    )


SWEEP = (
    "Live: all entries are younger than the shortest ttl. Half: every other one is older than the "
    "longest, and goes. Tenth opened: for every tenth only its header can tell. `find` knows of no "
    "ttl."
)


def sweeps(figures):
    lines = []
    for f in [*figures.rows("sweep", "nfs"), *figures.rows("sweep", "local")]:
        if "failed" in f:
            lines.append([f["subject"], NONE, NONE, f["place"], faults(f), NONE, NONE])
            continue
        each = f["requests_total"] / f["entries"] if "requests_total" in f else None
        place = {"nfs": "NFS", "local": "memory"}[f["place"]]
        lines.append(
            [
                f["subject"],
                f"{f['entries']:,}",
                f["what"],
                place,
                seconds(f["seconds"] / f["entries"]),
                f"{f['memory_mib']:.0f} MiB",
                NONE if each is None else f"{each:.4f}",
            ]
        )
    return table(["", "entries", "what", "on", "time each", "memory", "requests each"], lines)


def setting(result):
    """What it was measured on and with."""
    lines = []
    for run in result["runs"]:
        m, parts = run["machine"], ", ".join(dict.fromkeys(f["part"] for f in run["figures"]))
        where = {"nfs": "NFS", "local": "a file system in memory"}[run["place"]] + (
            f", delay {run['delay']} one way" if "delay" in run else ""
        )
        lines.append(
            f"{where}: {m['cpu']}, {m['cores']} {'core' if m['cores'] == 1 else 'cores'}, "
            f"{m['memory_gib']} GiB, {m['kernel']}, Python {m['python']}, {m['date']}; opening a "
            f"folder takes {spread(run['round_trip'])}{_page(run)}{_length(run)} ({parts})"
        )
    versions = sorted(result["versions"].items())
    packages = [f"{name} {version}" for name, version in versions if version]
    lines.append(", ".join(packages))
    missing = [name for name, version in versions if not version]
    if missing:
        lines.append(f"not installed: {', '.join(missing)}")
    return "\n".join(_wrapped(line, "- ") for line in lines)


def _length(run):
    return f"; it took {run['seconds'] / 60:.0f} minutes" if run.get("seconds") else ""


def _page(run):
    seconds_each = run["machine"].get("fresh_page")
    return f", a fresh page of memory {seconds(seconds_each)}" if seconds_each else ""


def _wrapped(text, mark=""):
    """Return a paragraph, or an item of a list, in lines of 100 columns."""
    indent = " " * len(mark)
    return textwrap.fill(
        text, 100, initial_indent=mark, subsequent_indent=indent, break_on_hyphens=False
    )


def markdown(result):
    parts = [setting(result)]
    parts += [
        f"## {title}\n\n{_wrapped(note) + chr(10) * 2 if note else ''}{body}"
        for title, note, body in sections(result)
        if body
    ]
    return "\n\n".join(parts) + "\n"


HEAD = """# Benchmarks: what each operation costs

Written by `python -m benchmarks --all --write`; `make bench` prints the same, measured anew. No
figure here was copied by hand. `figures.json` has them all, with the spread and every request by
its operation. `python -m benchmarks --root PATH [--other PATH]` measures on any mount, real EFS too
(two paths: two clients' mounts of it).

![requests and times, beside the peers](../docs/img/bench.svg)

How to read them: **requests** to the server (from `/proc/self/mountstats`) and **system calls**
(from strace; the memory allocator's are counted apart) are exact, and do not depend on the machine.
Times are medians with quartiles. They come from a small machine that other work shared, and NFS
runs in a guest with one processor. So compare them within a table, by the ratio to the bare system
calls for the same bytes, which were measured in the same run; in memory in turn with them, as the
ratio of the smallest samples, which other work disturbs least. That ratio depends on the CPU, too:
where system calls are cheap beside Python, it is twice as high for all subjects that are written in
Python. On NFS everything is put by one client and read by another, and the writer is still running
when the reader comes, as functions' environments are. Each subject runs in a process of its own;
one that fails is shown failing.

`python -m benchmarks --all` takes as long as the runs below together. `--lab 300us --only caches
--subjects lmdb` measures a part of it, and `--update` keeps the other figures of `figures.json`:
each run below names its parts and its date.

"""


BEGIN, END = "<!-- benchmarks: python -m benchmarks --write -->\n", "<!-- end of benchmarks -->"


def in_readme(figures):
    """Return README.md's table, and whom ours is faster than."""
    return f"{tables_answers.peers(figures)}\n\n{_wrapped(tables_answers.sentence(figures))}"


def in_models(figures):
    """Return the rates of docs/models.md."""
    heads = {
        "`files.read()`": "efsstate `files.read()`",
        "`read()` of the whole file": "`read()`",
        "`read(65536)` in a loop": "`read(64 KiB)` in a loop",
        "touching the pages of an `mmap`": "mmap, every page touched",
    }
    some = [figures.get("model", "nfs", name) for name in heads.values()]
    return table(list(heads), [[f"{f['rate'] / 2**20:.0f}" if "rate" in f else NONE for f in some]])


PAGES = {"README.md": in_readme, "docs/models.md": in_models}


def filled(text, body):
    """Return a page's text with the part between its marks replaced."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{body}\n\n{END}{rest.partition(END)[2]}"


def write(result, root):
    """Write benchmarks/README.md and figures.json, docs/img/bench.svg, and the tables of PAGES."""
    with open(f"{root}/benchmarks/README.md", "w") as file:
        file.write(HEAD + markdown(result))
    for name, body in PAGES.items():
        with open(f"{root}/{name}") as file:
            text = file.read()
        with open(f"{root}/{name}", "w") as file:
            file.write(filled(text, body(Figures(result))))
    with open(f"{root}/benchmarks/figures.json", "w") as file:
        json.dump(result, file, indent=1, sort_keys=True)
        file.write("\n")
    os.makedirs(f"{root}/docs/img", exist_ok=True)
    with open(f"{root}/docs/img/bench.svg", "w") as file:
        file.write(chart.svg(Figures(result)))
