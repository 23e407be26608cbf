"""What happened, as workers tell it, and what must not have: the checks of a history.

An operation is a dict: `op`, `name`, `t0`, `t1` (seconds by one clock, before and after), `who`,
and what the operation brings. One that was killed is not told; where that matters, the values say
who made them.

The checks are of what efsstate promises:

- A cache's value is one that somebody gave that key, whole. Once a newer one is acknowledged, an
  older is seen for 60 s more at the most, and not at all by who asks for `fresh`.
- A checkpoint is a register. Its state is a log to which every save appends its own id, so one
  observation tells all that came before it; a digest of the whole log is told in its place. Every
  acknowledged save and every load must lie on the one final log, at a place that agrees with the
  clock: that is linearizability, checked exactly and in n log n.
- One computation of a key, one winner of an `add`, where no fault was near. A shard is finished
  once, with all its items.
- What a model's load saw is one version, and not one that was replaced more than 60 s before.
"""

import bisect
import hashlib

STALE = 60.0  # seconds, the promise


def body(key, who, n):
    """The bytes that belong to the value `n` of `key` by `who`: some hundred to some thousand."""
    seed = hashlib.sha256(f"{key}|{who}|{n}".encode()).digest()
    return seed * (3 + seed[0])


def value(key, who, n):
    """A value that says what it is."""
    return {"key": key, "who": who, "n": n, "body": body(key, who, n)}


def sound(key, got):
    """(who, n) of a value that is whole and belongs to `key`; None if it is not."""
    try:
        if got["key"] == key and got["body"] == body(key, got["who"], got["n"]):
            return got["who"], got["n"]
    except (TypeError, KeyError):
        pass
    return None


def append(log, who, n):
    """The log with one more id; `log` is {"ids", "digest"} or None."""
    log = log or {"ids": [], "digest": ""}
    return {"ids": [*log["ids"], [who, n]], "digest": link(log["digest"], who, n)}


def link(digest, who, n):
    return hashlib.sha256(f"{digest}|{who}|{n}".encode()).hexdigest()[:16]


def place(log):
    """What is told of a log that was seen: how long it is, and the digest of all that is in it."""
    return [0, ""] if log is None else [len(log["ids"]), log["digest"]]


def _by(operations, *names):
    found = {}
    for operation in operations:
        if operation["op"] in names:
            found.setdefault((operation["name"], operation.get("key")), []).append(operation)
    return found


def check_cache(operations, margin=0.0):
    """Return values that are not whole, or older than they may be.

    `margin`: seconds by which two clocks may differ.
    """
    clears = {}
    for operation in operations:
        if operation["op"] == "clear" and operation.get("kept"):
            clears.setdefault(operation["name"], []).append(operation)
    for (name, _key), found in _by(operations, "set", "delete", "get").items():
        made = {(one["who"], one["n"]): one for one in found if one["op"] == "set"}
        # What puts an older value out of reach, by its beginning; and for each the earliest end
        # from there on.
        newer = [one for one in found if one["op"] != "get" and one.get("kept")] + clears.get(
            name, []
        )
        newer.sort(key=lambda one: one["t0"])
        begins, ends, earliest = [one["t0"] for one in newer], [], None
        for one in reversed(newer):
            earliest = one if earliest is None or one["t1"] < earliest["t1"] else earliest
            ends.append(earliest)
        ends.reverse()
        for one in found:
            if one["op"] != "get" or one["got"] is None:
                continue
            if one["got"] == "bad":
                yield "wrong value", one
                continue
            origin = made.get(tuple(one["got"]))
            if origin is None:
                continue  # of one that was killed before it could tell
            at = bisect.bisect_right(begins, origin["t1"] + margin)
            bound = 0.0 if one.get("fresh") else STALE
            if at < len(begins) and ends[at]["t1"] + bound + margin < one["t0"]:
                yield (
                    f"stale by {one['t0'] - ends[at]['t1']:.1f} s",
                    {"got": one, "made": origin, "newer": ends[at]},
                )


def staleness(operations):
    """The longest that a value was seen after a newer one was acknowledged, seconds."""
    longest = 0.0
    for found in _by(operations, "set", "get").values():
        made = {(one["who"], one["n"]): one for one in found if one["op"] == "set"}
        sets = sorted([one for one in made.values() if one.get("kept")], key=lambda one: one["t1"])
        for one in found:
            if (
                one["op"] == "get"
                and one["got"]
                and one["got"] != "bad"
                and (origin := made.get(tuple(one["got"])))
            ):
                after = next((s for s in sets if s["t0"] > origin["t1"]), None)
                if after is not None:
                    longest = max(longest, one["t0"] - after["t1"])
    return longest


def check_logs(operations, final, margin=0.0):
    """Checkpoints that are no register. `final`: the log of each name as it is at the end."""
    for (name, _), found in _by(operations, "append", "load").items():
        ids = final.get(name, {}).get("ids", [])
        digests, known = [""], set()
        for who, n in ids:
            digests.append(link(digests[-1], who, n))
            if (who, n) in known:
                yield "applied twice", {"name": name, "id": [who, n]}
            known.add((who, n))
        on = []
        for one in found:
            if one.get("unsettled"):
                continue
            length, digest = one["place"]
            if length >= len(digests) or digests[length] != digest:
                yield (
                    "not part of what came after"
                    if one["op"] == "append"
                    else "saw what is not there",
                    one,
                )
                continue
            if one["op"] == "append" and [one["who"], one["n"]] != list(ids[length - 1]):
                yield "acknowledged, and another's is there", one
                continue
            on.append(one)
        # What ended before another began lies before it: an append strictly after all that.
        ended = sorted(on, key=lambda one: one["t1"])
        at, highest = 0, None
        for one in sorted(on, key=lambda one: one["t0"]):
            while at < len(ended) and ended[at]["t1"] + margin < one["t0"]:
                if highest is None or ended[at]["place"][0] > highest["place"][0]:
                    highest = ended[at]
                at += 1
            if highest is None or highest is one:
                continue
            if one["place"][0] < highest["place"][0] + (one["op"] == "append"):
                yield "older than what ended before it began", {"before": highest, "after": one}


def check_epochs(operations, margin=0.0):
    """Claims whose epoch is not above that of every claim that ended before they began."""
    for found in _by(operations, "claim").values():
        ended = sorted(found, key=lambda one: one["t1"])
        at, highest = 0, 0
        for one in sorted(found, key=lambda one: one["t0"]):
            while at < len(ended) and ended[at]["t1"] + margin < one["t0"]:
                highest = max(highest, ended[at]["epoch"])
                at += 1
            if one["epoch"] <= highest:
                yield f"epoch {one['epoch']} after {highest}", one


def near(one, faults):
    """Whether a fault, or what it leaves behind, overlaps the operations `one`."""
    first, last = min(o["t0"] for o in one), max(o["t1"] for o in one)
    return any(begin <= last and first <= end for begin, end in faults)


def check_flights(operations, faults):
    """Return keys computed twice with no fault near, and how often near one: no violation."""
    duplicates, bad = 0, []
    for found in _by(operations, "compute").values():
        done = [one for one in found if one["computed"]]
        bad += [("wrong value", one) for one in found if one["got"] == "bad"]
        if len(done) > 1:
            duplicates += len(done) - 1
            if not near(found, faults):
                bad.append(("computed more than once", done))
    for found in _by(operations, "add").values():
        won = [one for one in found if one["kept"]]
        if len(won) > 1:
            duplicates += len(won) - 1
            if not near(found, faults):
                bad.append(("added more than once", won))
    return bad, duplicates


def check_shards(operations, final):
    """Require that each shard did its items in order, once.

    `final`: {name: {index: (finished, items)}}.
    """
    for (name, _), found in _by(operations, "shard").items():
        finished = {}
        for one in found:
            if one["finished"]:
                finished.setdefault(one["index"], []).append(one)
        for who in finished.values():
            if len(who) > 1:
                yield "a shard was finished twice", who
        for index, (done, items) in final.get(name, {}).items():
            if not done:
                yield "a shard was left out", {"name": name, "index": index}
            if items != list(range(len(items))) or not items:
                yield (
                    "a shard's items were not done once each",
                    {"name": name, "index": index, "items": items},
                )


def check_models(operations, margin=0.0):
    """Loads that saw a mixture, or a version that had been replaced more than 60 s before."""
    for (name, _), found in _by(operations, "activate", "model").items():
        activated = sorted(
            [one for one in found if one["op"] == "activate"], key=lambda one: one["t0"]
        )
        for one in found:
            if one["op"] != "model":
                continue
            if one["got"] == "bad":
                yield "a model that is not one version", one
                continue
            if one["got"] is None:
                if any(a.get("kept") and a["t1"] + STALE + margin < one["t0"] for a in activated):
                    yield "no model, long after one was activated", one
                continue
            mine = [a for a in activated if a["version"] == one["got"]]
            if not mine or not all(a.get("kept") for a in mine):
                continue
            last = max(a["t1"] for a in mine)
            after = [
                a
                for a in activated
                if a.get("kept")
                and a["t0"] > last + margin
                and a["t1"] + STALE + margin < one["t0"]
            ]
            # Another activation of the same version may be under way, or was not told: then the
            # version is unique, so no.
            if after:
                yield (
                    "a version that was replaced long before",
                    {"name": name, "got": one, "newer": after[0]},
                )
