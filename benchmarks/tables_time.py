"""The tables of a process's own time and memory: lean hits, memory, cold starts, large results."""

from benchmarks.text import NONE, count, faults, seconds, spread, table


def lean(figures):
    lines = []
    for f in figures.rows("lean", "local"):
        if faults(f):
            lines.append([f["subject"], faults(f), *[NONE] * 5])
            continue
        counted = [count(f.get(name)) for name in ("calls", "allocator", "page_faults", "modules")]
        lines.append([f["subject"], spread(f["time"]), count(f["ratio"]), *counted])
    heads = ["time", "× bare", "system calls", "of the allocator", "page faults", "modules"]
    return table(["", *heads], lines)


def memory(figures):
    rows = [
        f for row in ("memory", "memory answers", "footprint") for f in figures.rows(row, "local")
    ]
    kinds = list(dict.fromkeys(f["kind"] for f in rows if "kind" in f))
    lines = []
    for name in dict.fromkeys(f["subject"] for f in rows):
        if failed := next((faults(f) for f in rows if f["subject"] == name and faults(f)), ""):
            lines.append([name, failed, *[NONE] * (len(kinds) + 3)])
            continue
        of_kind = {f["kind"]: f for f in rows if f["subject"] == name and "kind" in f}
        answers = figures.get("memory answers", "local", name)
        size = figures.get("footprint", "local", name)
        first = next(iter(of_kind.values()), None)
        lines.append(
            [
                name,
                seconds(first["time"]["median"]) if first else NONE,
                *[count(of_kind[kind]["ratio"]) if kind in of_kind else NONE for kind in kinds],
                (f"**{answers['confused']}**" if answers["confused"] else "0") if answers else NONE,
                ("**shared**" if answers["shared"] else "own copies") if answers else NONE,
                _bytes(size),
            ]
        )
    heads = ["a string: time", *[f"{kind}: ×" for kind in kinds]]
    return table(["", *heads, "confused", "results", "bytes an entry"], lines)


def _bytes(size):
    if not size or faults(size):
        return faults(size) if size else NONE
    text = f"{size['bytes_each']:.0f}, {size['bytes_each'] - size['objects']:.0f} of overhead"
    lost = size["entries"] - size["kept"]
    return f"{text}; {lost} not kept" if lost else text


def cold(figures):
    rows = figures.rows("cold", "local")
    lines = []
    for name in dict.fromkeys(f["subject"] for f in rows):
        of_kind = {f.get("bytecode"): f for f in rows if f["subject"] == name}
        if failed := next((faults(f) for f in of_kind.values() if faults(f)), ""):
            lines.append([name, failed, *[NONE] * 4])
            continue
        cells = [name]
        for kind in ("with", "without"):
            f = of_kind.get(kind, {})
            cells.append(seconds(f["seconds"]) if f else NONE)
            cells.append(count(f.get("ratio")))
        modules = max((f["modules"] for f in of_kind.values() if "modules" in f), default=None)
        lines.append([*cells, modules])
    heads = ["with bytecode", "× lock", "without", "× lock", "modules"]
    return table(["", *heads], lines)


def large(figures):
    lines = []
    for place, name in (("local", "memory"), ("nfs", "NFS, 3 ms")):
        for f in figures.rows("large", place):
            if faults(f):
                lines.append([f["subject"], name, faults(f), *[NONE] * 5])
                continue
            lines.append(
                [
                    f["subject"],
                    name,
                    seconds(f["seconds"]),
                    count(f["ratio"]),
                    seconds(f["returned"]),
                    f"{f['page_faults']:,}",
                    f"{f['memory'] / f['size']:.2f}",
                    "" if f["writable"] else "read-only",
                ]
            )
    heads = ["on", "time", "× `np.load`", "returned", "page faults", "copies", ""]
    return table(["", *heads], lines)


def middle(figures):
    rows = figures.rows("middle", "nfs")
    sizes = sorted({f["size"] for f in rows if "size" in f})
    lines = []
    for name in dict.fromkeys(f["subject"] for f in rows if "size" in f):
        of_size = {f["size"]: f for f in rows if f["subject"] == name}
        cells = [of_size.get(size, {}) for size in sizes]
        lines.append([name, *[faults(f) or count(f.get("requests")) for f in cells]])
    return table(["", *[f"{size >> 10:,} KiB" for size in sizes]], lines)
