"""Write the tables in Markdown, benchmarks/README.md, and the JSON beside it."""

import json
import os
import textwrap

from benchmarks import chart
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
        calls = figures.get(f"{row} calls", "local", name).get("calls")
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
                count(calls),
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
            "memory: time",
            "× bare",
        ],
        lines,
    )


def stampede(figures):
    lines = []
    for place in ("nfs", "local"):
        for f in figures.rows("stampede", place):
            text = f.get("failed") or f"{f['computations']}"
            broken = [
                f"{f[name]} {what}"
                for name, what in (
                    ("errors", "of the callers get an error"),
                    ("wrong", "wrong answers"),
                    ("hung", "hang"),
                )
                if f.get(name)
            ]
            if broken:
                text += f", {', '.join(broken)}" + (f" ({f['error']})" if "error" in f else "")
            lines.append((f["subject"], place, text))
    names = dict.fromkeys(name for name, _, _ in lines)
    cell = {(name, place): text for name, place, text in lines}
    return table(
        ["", "NFS, two clients", "one host"],
        [[name, cell.get((name, "nfs"), NONE), cell.get((name, "local"), NONE)] for name in names],
    )


def flipped(figures):
    def cells(f):
        if "failed" in f:
            return [f"**fails**: {f['failed']}"]
        found = [
            f"{f[name]} {text}"
            for name, text in (
                ("wrong", "**wrong value returned**"),
                ("recomputed", "noticed: a miss, computed again"),
                ("raised", f"an error: {f.get('error', '')}"),
                ("right", "right value"),
                ("not found on disk", "value not found on disk"),
            )
            if f.get(name)
        ]
        return [f"{', '.join(found)}"]

    return table(
        ["", "of 32 flipped bits"],
        [[f["subject"], *cells(f)] for f in figures.rows("flipped", "local")],
    )


def confusion(figures):
    rows = figures.rows("confusion", "local")
    groups = sorted(
        {name for f in rows for name in [*f.get("wrong", {}), *f.get("errors", {})]}
    )  # as figures.json sorts them

    def cell(f, group):
        if "failed" in f:
            return f"**fails**: {f['failed']}"
        if group in f.get("errors", {}):
            return f"an error: {f['errors'][group]}"
        return f"**{f['wrong'][group]} wrong**" if f["wrong"][group] else "right"

    return table(
        ["", *groups], [[f["subject"], *[cell(f, group) for group in groups]] for f in rows]
    )


def updates(figures):
    rows = figures.rows("updates", "nfs")
    cell = {
        (f["subject"], f["readers"]): f"{f['kept']} of {f['acknowledged']} kept"
        for f in rows
        if "kept" in f
    }
    return table(
        ["", "alone", "with readers"],
        [
            [name, cell.get((name, False), NONE), cell.get((name, True), NONE)]
            for name in dict.fromkeys(f["subject"] for f in rows)
        ],
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
        "Hit",
        (
            "An entry of 1 KiB, put by client a, read by client b for the first time, in folders "
            "that b knows. Without the memory tier."
        ),
        operation(figures, "hit"),
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
        "",
        simple(
            figures,
            "memory",
            "local",
            time,
            ("× `cachetools.cached` with a lock", lambda f: count(f["ratio"])),
        ),
    )
    yield (
        "Eight cold callers on one key",
        (
            "How often the value is computed; each computation takes half a second. One is what a "
            "cache is for."
        ),
        stampede(figures),
    )
    yield (
        "One flipped bit in the stored value",
        "A new environment then asks for it.",
        flipped(figures),
    )
    yield (
        "Arguments that look alike",
        "Whether each call gets the answer to its own arguments.",
        confusion(figures),
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
        updates(figures),
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
            "page of memory costs about 150 µs, a hundred times as much as elsewhere: it slows "
            "down every way into new memory, and `read()`, which fills its buffer twice, the most. "
            "Into a buffer that is reused and touched beforehand, ours is about 2.3 times as fast "
            "as one `read()` of the file, and 10 times as fast as a loop of 64 KiB."
        ),
        simple(
            figures,
            "model",
            "nfs",
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
        m = run["machine"]
        where = {"nfs": "NFS", "local": "a file system in memory"}[run["place"]] + (
            f", delay {run['delay']} one way" if "delay" in run else ""
        )
        lines.append(
            f"{where}: {m['cpu']}, {m['cores']} {'core' if m['cores'] == 1 else 'cores'}, "
            f"{m['memory_gib']} GiB, {m['kernel']}, Python {m['python']}, {m['date']}; opening a "
            f"folder takes {spread(run['round_trip'])}"
        )
    packages = [f"{name} {version}" for name, version in result["versions"].items() if version]
    lines.append(", ".join(packages))
    missing = [name for name, version in result["versions"].items() if not version]
    if missing:
        lines.append(f"not installed: {', '.join(missing)}")
    return "\n".join(_wrapped(line, "- ") for line in lines)


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
(from strace, without the allocator's) are exact, and do not depend on the machine. Times are
medians with quartiles. They come from a small machine that other work shared, and NFS runs in a
guest with one processor. So compare them within a table, by the ratio to the bare system calls for
the same bytes, which were measured in the same run; in memory, in turn with them. On NFS everything
is put by one client and read by another, and the writer is still running when the reader comes, as
functions' environments are. Each subject runs in a process of its own; one that fails is shown
failing.

"""


def write(result, root):
    """benchmarks/README.md, benchmarks/figures.json and docs/img/bench.svg."""
    with open(f"{root}/benchmarks/README.md", "w") as file:
        file.write(HEAD + markdown(result))
    with open(f"{root}/benchmarks/figures.json", "w") as file:
        json.dump(result, file, indent=1, sort_keys=True)
        file.write("\n")
    os.makedirs(f"{root}/docs/img", exist_ok=True)
    with open(f"{root}/docs/img/bench.svg", "w") as file:
        file.write(chart.svg(Figures(result)))
