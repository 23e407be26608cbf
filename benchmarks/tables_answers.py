"""The tables of each cache's wrong answers, and of the acknowledged writes that it keeps."""

from benchmarks import subjects
from benchmarks.budgets import CACHED, compared_hits
from benchmarks.text import NONE, count, faults, table


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


def _kept(f):
    """Return how many of the acknowledged puts are there, and what went wrong besides."""
    bad = f["lost"] + f["wrong"] + f["errors"]
    more = [f"{f[name]} {name}" for name in ("lost", "wrong", "errors") if f[name]]
    if f.get("asked", f["acknowledged"]) > f["acknowledged"]:
        more.append(f"{f['asked'] - f['acknowledged']} puts refused")
    if not f["usable"]:
        more.append("unusable afterwards")
    if more and "error" in f:
        more.append(f["error"])
    return f"{f['acknowledged'] - bad} of {f['acknowledged']}", more


def _counted(f):
    """Return how many of the acknowledged increments are in the total, and what went wrong."""
    more = []
    if f["acknowledged"] < f["asked"]:
        more = [f"{f['asked'] - f['acknowledged']} refused", f.get("error", "without an error")]
    if f["total"] != f["acknowledged"]:
        more.insert(0, f"{f['acknowledged'] - f['total']} lost")
    return f"{f['total']} of {f['acknowledged']}", more


def _cell(figures, row, place, name, *, short=False):
    """Return a figure's text: bold if something went wrong, and with what it was."""
    f = figures.get(row, place, name)
    if not f:
        counts = [subject.add_one for subject in subjects.ALL if subject.name == name]
        return "not measured" if row != "counter" or any(counts) else NONE
    if "failed" in f or (row == "counter" and "total" not in f):
        return "**fails**" if short else f"**fails**: {f.get('failed', 'no total')}"
    text, more = SURVIVAL[row][1](f)
    if not more:
        return text
    if short:
        more = [what for what in more if what.endswith("refused")]
        return ", ".join([f"**{text}**", *more])
    return f"**{text}**: {', '.join(more)}"


SURVIVAL = {"killed": ("killed", _kept), "writers": ("two writers", _kept)} | {
    "counter": ("counter", _counted)
}
PLACES = {"local": "one host", "nfs": "NFS"}


def survival(figures):
    columns = [(row, place) for row in SURVIVAL for place in PLACES]
    names = dict.fromkeys(f["subject"] for row, place in columns for f in figures.rows(row, place))
    return table(
        ["", *[f"{SURVIVAL[row][0]}: {PLACES[place]}" for row, place in columns]],
        [[name, *[_cell(figures, row, place, name) for row, place in columns]] for name in names],
    )


def summary(figures):
    """Return a row for each cache: how fast its hits are, beside what it gets wrong."""
    names = dict.fromkeys(
        f["subject"]
        for row, place in (("killed", "local"), ("killed", "nfs"))
        for f in figures.rows(row, place)
    )
    lines = [[name, *_in_short(figures, name)] for name in names]
    heads = ["hit × bare", "hit: requests", "a flipped bit", "eight cold callers"]
    return table(["", *heads, "writer killed", "two writers", "two count"], lines)


def _in_short(figures, name):
    hit = figures.get("lean", "local", name) or figures.get("hit", "local", name)
    on_nfs = figures.get("hit", "nfs", name)
    yield count(hit.get("ratio"))
    if "requests" in on_nfs:
        yield count(on_nfs["requests"]) + (f", {faults(on_nfs)}" if faults(on_nfs) else "")
    else:
        failed = on_nfs.get("failed") or figures.get("hits", "nfs", name).get("failed")
        yield "**fails**" if failed else NONE
    yield _flips(figures.get("flipped", "local", name))
    yield _callers(figures.get("stampede", "nfs", name))
    for row in SURVIVAL:
        yield _cell(figures, row, "nfs", name, short=True)


def _flips(f):
    if not f or "failed" in f:
        return "**fails**" if f else NONE
    if f["wrong"]:
        return f"**{f['wrong']} wrong values**"
    return "an error" if f["raised"] else "noticed: a miss"


def _callers(f):
    if not f or "failed" in f:
        return "**fails**" if f else NONE
    text = f"{f['computations']} computations" if f["computations"] != 1 else "1 computation"
    bad = f["errors"] + f["wrong"] + f["hung"]
    if bad:
        return f"**{text}, {bad} callers fail**"
    return text if f["computations"] == 1 else f"**{text}**"


def peers(figures):
    """Return README.md's table: requests, one host's time, and what each gets wrong on NFS."""
    names = [f["subject"] for f in figures.rows("flipped", "local")]
    lines = []
    for name in names:
        if name.startswith("efsstate `Cache"):
            continue
        short = list(_in_short(figures, name))
        storing = "efsstate `Cache`" if name == CACHED else name  # its `set`, in the same format
        requests = [
            count(figures.get("put", "nfs", storing).get("requests")),
            count(figures.get("miss", "nfs", name).get("requests"))
            or "**fails**" * ("failed" in figures.get("writes", "nfs", name)),
        ]
        lines.append([name, short[1], *requests, *short[2:]])
        lines[-1].insert(4, count(figures.get("hit", "local", name).get("ratio")))
    heads = ["hit", "put", "miss", "hit on tmpfs, × bare", "a flipped bit", "eight cold callers"]
    return table(["", *heads, "writer killed", "two writers", "two count"], lines)


def sentence(figures):
    """Return whom a hit of ours is faster than on tmpfs, and whom it is not."""
    found, ours = compared_hits(figures), figures.get("hit", "local", CACHED).get("ratio", 0)
    slower, faster = ({**found[name]["decorators"], **found[name]["stores"]} for name in found)

    def named(peers):
        return ", ".join(f"{name} ({ratio:.3g})" for name, ratio in peers.items())

    text = f"On tmpfs, a hit of `cached` takes {ours:.3g} times as long as bare open-read-close."
    if slower:
        text += f" That is faster than {named(slower)}."
    if faster:
        text += f" Faster than ours are {named(faster)}."
        blind = [name for name in faster if figures.get("flipped", "local", name).get("wrong")]
        if blind == [*faster]:
            text += " Each of these returns a value in which a bit was flipped."
    return text
