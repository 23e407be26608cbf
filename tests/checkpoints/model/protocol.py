"""The protocol of src/efsstate/checkpoints/protocol.py as a state machine: one step is one.

Request that the server executes.

Between two steps of a process anything else may happen, so a freeze is "takes no step for a while",
a final crash "takes no
step any more", and every prefix is explored. The lock is left out: since it can be lost at any
moment without notice, a worker
may begin a claim at any moment, which is a superset of what happens with it.

A state is the set of the saves that it contains (every save adds one), so "nothing is lost" is set
inclusion.

Checked, at every step:

  ACK     a load or claim lacks what was acknowledged before it began
  DIRTY   ... lacks what another load or claim had returned before it began
  UNDONE  ... and that was a finish
  FORK    a save is acknowledged without another one that was acknowledged before: two owners
  DONE2   two finishes are acknowledged
  GONE    a load, if one took place at this moment, would lack what was acknowledged
  STUCK   ... would never end
  SILENT  a load lacks what was acknowledged, damaged since, and gave no warning
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

TORN, WHOLE, DAMAGED = (
    0,
    1,
    2,
)  # a generation: half written (only where the rule `whole` is broken), valid, valid once
BASE, TARGET, SAVE = 0, 1, 2  # what an item of a walk is: a base, its target, a save
NOTHING = (0, 0)

(
    IDLE,
    MAKE,
    TAKEN,
    LIST,
    LIST2,
    WALK,
    SETTLE,
    CONFIRM,
    OWN,
    WRITE,
    LOOK,
    LOOK2,
    FAILED,
    MARK,
    LOST,
    REFUSED,
    END,
    RELIST,
    RELOOK,
) = range(19)


@dataclass(frozen=True)
class Rules:
    """What is explored (first part), and the protocol's rules, each of which can be broken."""

    saves: tuple = (2, 1)  # saves of each worker, at most 4; the last is its finish
    claims: tuple = (1, 1)  # claims of each worker; further ones come after a crash or a lost claim
    loaders: int = 1  # each loads again and again
    readonly: bool = False  # loaders can't write: they return what they have, unsettled
    finish: bool = True
    lost: int = 0  # replies that are lost: the create was executed, the client sees EEXIST
    errors: int = 0  # saves that end in an OSError at any point, the owner going on with its claim
    flips: int = 0  # generations that are damaged
    sweep: bool = True
    # A listing in two parts, and what comes in the first: "epochs" "bases" "saves" "odd" "even";
    # "": at once
    parts: str = ""
    ahead: int = 0  # how far the epochs of the last worker are above the next one: a rebase
    # The rules
    epoch_exclusive: bool = True  # else two claimants may share an epoch
    list_after_epoch: bool = True  # else a claimant goes by the listing from before
    look: str = (
        "after"  # a save looks for a higher epoch "after" the write; else "before" it, or "never"
    )
    bases: bool = True  # else a claimant starts from what it finds
    base_exclusive: bool = True  # else a second base replaces the first
    claim_looks: bool = True  # a claimant that finds the job finished looks again before it tells
    load_looks: bool = True  # so does a load whose listing comes in parts
    # ... but not for the "save" that the last load of its process returned ("": each process loads
    # once); else not for any save of that one's "epoch"
    remembers: str = ""
    # A load makes a base only from a listing later than the epoch; else from the one that shows it
    settle_late: bool = True
    settle_follow: bool = True  # and lists again after it made one; else it goes by that
    nothing_twice: bool = True  # that nothing was saved is said by two listings; else by one
    # A save appears whole, by a rename; else it can be seen half written, and is passed over
    whole: bool = True
    relist: bool = True  # ENOENT on a listed name: list again; else go on to the next
    # A save is removed behind an "acknowledged" one; else behind a "published" one
    remove: str = "acknowledged"
    oldest_first: bool = True  # in that order
    top_stays: bool = True  # the highest epoch stays; else it goes once it has an acknowledged save
    settled_only: bool = True  # nothing is swept while the newest epoch has no base
    refuse_damage: bool = (
        True  # a claim that would step back over an acknowledged save refuses; else it goes on
    )
    leave_damage: bool = True  # so a load decides no base in that case; else it does
    prune: bool = True  # claimants remove the links of former claims without a save
    # A shard is marked finished once that is "acknowledged"; else once "published"
    mark: str = "acknowledged"


class Worker(NamedTuple):
    at: int = IDLE
    epoch: int = 0
    number: int = 0
    mask: int = 0
    todo: tuple = ()  # the rest of the walk
    limit: tuple = ()  # a base said: nothing from here on up
    decided: bool = False
    lost: bool = False  # passed over an acknowledged save
    target: tuple = NOTHING
    saved: int = 0  # its saves so far
    claims: int = 0
    need: int = 0  # what was acknowledged when this claim began
    shown: int = 0  # what had been returned to somebody then
    half: tuple = ()  # the first part of a listing


class Loader(NamedTuple):
    at: int = IDLE
    epoch: int = 0
    mask: int = 0
    todo: tuple = ()
    limit: tuple = ()
    decided: bool = False
    lost: bool = False
    warned: bool = False
    target: tuple = NOTHING
    need: int = 0
    shown: int = 0
    half: tuple = ()
    names: tuple = None  # what it listed, where it may list once more
    before: tuple = None  # and what it listed before
    known: tuple = NOTHING  # the save that the last load returned


class Folder(NamedTuple):
    """What all processes share: the files, and what was acknowledged and shown."""

    epochs: frozenset
    bases: tuple  # (epoch, target)
    saves: tuple  # (epoch, number, condition, mask), sorted
    behind: tuple  # the highest save behind which owners may remove
    acked: int
    seen: int
    lost: int
    errors: int
    flips: int


class State(NamedTuple):
    folder: Folder
    workers: tuple
    loaders: tuple


class Protocol:
    def __init__(self, rules):
        self.rules = rules
        # Most states differ only in what the other processes are at: a process has the same steps.
        self.steps = functools.cache(self.all_steps)
        self.done = (
            sum(bit(w, n - 1) for w, n in enumerate(rules.saves) if n) if rules.finish else 0
        )

    def initial(self):
        r = self.rules
        folder = Folder(frozenset(), (), (), NOTHING, 0, 0, r.lost, r.errors, r.flips)
        return State(folder, tuple(Worker(claims=n) for n in r.claims), (Loader(),) * r.loaders)

    # Listings and walks

    def names(self, s):
        return (
            tuple(("e", e, 0) for e in s.epochs)
            + tuple(("b", e, 0) for e, _ in s.bases)
            + tuple(("g", e, n) for e, n, *_ in s.saves)
        )

    def first_part(self, names):
        part = {
            "epochs": lambda n: n[0] == "e",
            "bases": lambda n: n[0] == "b",
            "saves": lambda n: n[0] == "g",
            "odd": lambda n: (n[1] + n[2]) % 2 == 1,
            "even": lambda n: (n[1] + n[2]) % 2 == 0,
        }[self.rules.parts]
        return tuple(sorted(n for n in names if part(n))), tuple(
            sorted(n for n in names if not part(n))
        )

    @staticmethod
    def top(names):
        return max((e for kind, e, _ in names if kind != "g"), default=0)

    def walk(self, names, epoch):
        """The items of a search under `epoch`, newest first."""
        claimed = {e for kind, e, _ in names if kind != "g"}
        saves = [(e, n) for kind, e, n in names if kind == "g" and e in claimed]
        items = [(e, n, SAVE) for e, n in saves if e <= epoch]
        if self.rules.bases:
            items += [(e, 0, BASE) for kind, e, _ in names if kind == "b" and e <= epoch]
        return tuple(sorted(items, reverse=True))

    def search(self, s, p):
        """One request of the walk of `p`: (label, outcome, p after it).

        Outcome is "again", "on", "found" or "nothing".
        """
        todo = p.todo
        while todo and p.limit and todo[0][2] != TARGET and todo[0][:2] >= p.limit:
            todo = todo[1:]  # what a base decided not to count
        if not todo:
            return None, "nothing", p._replace(todo=(), target=NOTHING, mask=0)
        e, n, kind = todo[0]
        if kind == BASE:
            target = dict(s.bases).get(e)
            name = f"readlink b{e}"
            if target is None:
                return f"{name}: gone", "again", p
            p = p._replace(decided=p.decided or e == p.epoch)
            if target == NOTHING:
                return f"{name} -> nothing", "nothing", p._replace(todo=(), target=NOTHING, mask=0)
            p = p._replace(limit=target, todo=((*target, TARGET), *todo[1:]))
            return f"{name} -> {target[0]}-{target[1]}", "on", p
        name = f"read {e}-{n}"
        p = p._replace(decided=p.decided or e == p.epoch)
        save = next((f for f in s.saves if f[:2] == (e, n)), None)
        rest = p._replace(todo=todo[1:])
        if save is None:
            if self.rules.relist and not p.lost:
                return f"{name}: gone", "again", p
            return f"{name}: gone", "on", rest._replace(lost=p.lost or kind == TARGET)
        if save[2] == WHOLE:
            return (
                f"{name} = {show(save[3])}",
                "found",
                p._replace(todo=(), target=(e, n), mask=save[3]),
            )
        rest = rest._replace(lost=p.lost or save[2] == DAMAGED)
        if isinstance(rest, Loader):
            rest = rest._replace(warned=True)
        return f"{name}: {'torn' if save[2] == TORN else 'damaged'}", "on", rest

    # What is checked

    def missing(self, p, mask, *, warned=False, unsettled=False):
        lack = p.need & ~mask
        if lack and not warned:
            kind = "SILENT" if self.rules.flips else "ACK"
            before = f"{show(p.need)} was acknowledged before it began"
            return f"{kind} returns {show(mask)}, but {before}"
        gone = p.shown & ~mask
        if gone and not warned and not unsettled:
            kind = "UNDONE" if gone & self.done else "DIRTY"
            before = f"{show(p.shown)} had been returned before it began"
            return f"{kind} returns {show(mask)}, but {before}"
        return None

    # Steps

    def next(self, state):
        folder, workers, loaders = state
        for i, w in enumerate(workers):
            for label, after, w2, bad in self.steps(self.worker, folder, i, w):
                yield label, State(after, (*workers[:i], w2, *workers[i + 1 :]), loaders), bad
        for i, p in enumerate(loaders):
            for label, after, p2, bad in self.steps(self.loader, folder, i, p):
                yield label, State(after, workers, (*loaders[:i], p2, *loaders[i + 1 :])), bad
        for label, after, _, bad in self.steps(self.surroundings, folder):
            yield label, State(after, workers, loaders), bad

    def all_steps(self, of, folder, *process):
        """Return the steps: who and what, the folder and the process after it, the violation."""
        who = f"{of.__name__[0]}{''.join(map(str, process[:1]))}"
        return [
            ((who, label), folder._replace(**change), after, bad)
            for label, change, after, bad in of(folder, *process)
        ]

    def listing(self, s, p, then, second):
        """The steps of a listing: at once, or its first part now and the second at `second`.

        `then(names)` goes on.
        """
        names = self.names(s)
        if not self.rules.parts:
            yield "list", *then(names)
        elif p.at != second:
            yield (
                "list, first part",
                {},
                p._replace(at=second, half=self.first_part(names)[0]),
                None,
            )
        else:
            yield "list, second part", *then(p.half + self.first_part(names)[1])

    def worker(self, s, i, w):
        r = self.rules
        fresh = Worker(saved=w.saved, claims=w.claims)
        more = w.saved < r.saves[i]
        if w.at == IDLE:
            if w.claims and more:
                names = self.names(s)
                epoch = self.top(names) + 1 + (r.ahead if i == len(r.saves) - 1 else 0)
                todo = () if r.list_after_epoch else self.walk(names, epoch)
                yield (
                    "list",
                    {},
                    w._replace(
                        at=MAKE,
                        epoch=epoch,
                        claims=w.claims - 1,
                        need=s.acked,
                        shown=s.seen,
                        todo=todo,
                    ),
                    None,
                )
            return
        if w.at in (END, REFUSED):
            return
        if w.at == LOST:
            if w.claims and more:
                yield "try again", {}, fresh, None
            return
        if w.claims and w.at not in (
            MAKE,
            TAKEN,
        ):  # the save that was under way is used up: it may be there
            crashed = fresh._replace(saved=w.saved + (w.at in (WRITE, LOOK, LOOK2, RELOOK, FAILED)))
            if crashed.saved < r.saves[i]:
                yield "crash", {}, crashed, None
        if w.at == MAKE:
            taken = w._replace(at=TAKEN)
            if w.epoch in s.epochs and r.epoch_exclusive:
                yield f"symlink e{w.epoch}: exists", {}, taken, None
                return
            change = {"epochs": s.epochs | {w.epoch}}
            yield (
                f"symlink e{w.epoch}",
                change,
                w._replace(at=LIST if r.list_after_epoch else WALK),
                None,
            )
            if s.lost:
                yield (
                    f"symlink e{w.epoch}, reply lost: exists",
                    {**change, "lost": s.lost - 1},
                    taken,
                    None,
                )
        elif w.at == TAKEN:
            yield (
                "list",
                {},
                w._replace(at=MAKE, epoch=max(self.top(self.names(s)), w.epoch) + 1),
                None,
            )
        elif w.at in (LIST, LIST2, RELIST):

            def listed(names):
                if w.at != RELIST and not r.parts and ("e", w.epoch, 0) not in names:
                    return (
                        {},
                        w._replace(at=RELIST),
                        None,
                    )  # what it just made does not show: ask the server in another way
                if self.top(names) > w.epoch:
                    return {}, fresh._replace(at=LOST), None
                return (
                    {},
                    w._replace(
                        at=WALK,
                        todo=self.walk(names, w.epoch),
                        limit=(),
                        decided=False,
                        lost=False,
                        half=(),
                    ),
                    None,
                )

            yield from self.listing(s, w, listed, LIST2)
        elif w.at == WALK:
            label, outcome, w2 = self.search(s, w)
            if outcome == "again":
                yield label, {}, w._replace(at=RELIST, todo=(), limit=()), None
            elif outcome == "on":
                yield label, {}, w2, None
            elif w2.lost and r.refuse_damage:
                yield label, {}, w2._replace(at=REFUSED, todo=(), limit=()), None
            elif not w2.decided and r.bases:
                w2 = w2._replace(at=SETTLE, limit=())
                if label is None:  # nothing to read: the next request is the base
                    yield from self.worker(s, i, w2)
                else:
                    yield label, {}, w2, None
            else:
                yield label, *self.own(s, i, w2)
        elif w.at == SETTLE:
            name = f"symlink b{w.epoch}"
            if w.epoch in dict(s.bases) and r.base_exclusive:
                yield f"{name}: exists", {}, w._replace(at=RELIST), None
                return
            change = {"bases": self.based(s, w.epoch, w.target)}
            change, after, bad = self.own(s, i, w, change)
            yield (
                f"{name} -> {w.target[0]}-{w.target[1]}",
                change,
                after,
                bad or self.kept(s._replace(**change)),
            )
            if s.lost:
                yield (
                    f"{name}, reply lost: exists",
                    {**change, "lost": s.lost - 1},
                    w._replace(at=RELIST),
                    None,
                )
        elif w.at == CONFIRM:
            if self.top(self.names(s)) > w.epoch:
                yield "list", {}, fresh._replace(at=LOST), None
            else:
                yield (
                    "list",
                    {"seen": s.seen | w.mask},
                    fresh._replace(at=END),
                    self.missing(w, w.mask),
                )
        elif w.at == OWN:
            number = w.number + 1
            mask = w.mask | bit(i, w.saved)
            if r.look == "before":
                higher = self.top(self.names(s)) > w.epoch
                made = w._replace(at=WRITE, number=number, mask=mask)
                yield (
                    "list",
                    {},
                    fresh._replace(at=LOST, saved=w.saved + 1) if higher else made,
                    None,
                )
                return
            made = w._replace(number=number, mask=mask)
            if not r.whole:
                yield (
                    f"create {w.epoch}-{number}",
                    {"saves": put(s.saves, w.epoch, number, TORN, 0)},
                    made._replace(at=WRITE),
                    None,
                )
                return
            if s.errors:
                yield (
                    f"rename {w.epoch}-{number}: error",
                    {"errors": s.errors - 1},
                    self.failed(made),
                    None,
                )
            yield from self.publish(s, i, made)
        elif w.at == WRITE:
            yield from self.publish(s, i, w)
        elif w.at in (LOOK, LOOK2, RELOOK):

            def looked(names):
                if w.at != RELOOK and not r.parts and ("g", w.epoch, w.number) not in names:
                    return {}, w._replace(at=RELOOK), None
                if self.top(names) > w.epoch:
                    return {}, fresh._replace(at=LOST, saved=w.saved + 1), None
                return self.acknowledge(s, i, w, {})

            yield from self.listing(s, w, looked, LOOK2)
            if s.errors:
                yield "list: error", {"errors": s.errors - 1}, w._replace(at=OWN, half=()), None
        elif w.at == FAILED:
            higher = self.top(self.names(s)) > w.epoch
            yield (
                "list",
                {},
                fresh._replace(at=LOST, saved=w.saved + 1) if higher else w._replace(at=OWN),
                None,
            )
        elif w.at == MARK:
            yield "mark", {"seen": s.seen | w.mask}, w._replace(at=END), None

    def publish(self, s, i, w):
        """The save is there, whole."""
        r = self.rules
        there = r.whole or any(f[:2] == (w.epoch, w.number) for f in s.saves)
        change = {"saves": put(s.saves, w.epoch, w.number, WHOLE, w.mask) if there else s.saves}
        if r.remove == "published":
            change["behind"] = max(s.behind, (w.epoch, w.number))
        if r.mark == "published" and w.mask & self.done:
            change["seen"] = s.seen | w.mask
        name = f"rename {w.epoch}-{w.number} = {show(w.mask)}"
        if r.look == "after":
            yield name, change, w._replace(at=LOOK), None
        else:
            yield name, *self.acknowledge(s, i, w, change)
        if s.errors:
            yield f"{name}: error", {**change, "errors": s.errors - 1}, self.failed(w), None

    def own(self, s, i, w, change=None):
        """The claim is told to its owner.

        What it starts from counts as returned only if it is finished.
        """
        change = change or {}
        finished = w.mask & self.done
        if finished and self.rules.claim_looks:
            return change, w._replace(at=CONFIRM, todo=(), limit=(), target=NOTHING), None
        bad = self.missing(w if finished else w._replace(shown=0), w.mask)
        at = END if finished or w.saved >= self.rules.saves[i] else OWN
        owner = Worker(at=at, epoch=w.epoch, mask=w.mask, saved=w.saved, claims=w.claims)
        return {**change, "seen": s.seen | w.mask} if finished else change, owner, bad

    def failed(self, w):
        """The save raised; the state and the claim stay, and the number is never used again."""
        return w._replace(at=FAILED, half=())

    def acknowledge(self, s, i, w, change):
        saves = change.get("saves", s.saves)
        acked = s.acked | bit(i, w.saved)
        bad = None
        # A listing in parts may end after a successor has saved on top of this save: then `kept`
        # tells.
        if s.acked & ~w.mask and not self.rules.parts:
            lack = show(s.acked & ~w.mask)
            bad = f"FORK acknowledges {show(w.mask)}, which lacks acknowledged {lack}"
        elif ((s.acked | w.mask) & self.done).bit_count() > 1:
            bad = f"DONE2 finished by {show((s.acked | w.mask) & self.done)}"
        else:
            bad = self.kept(s._replace(saves=saves, acked=acked))
        last = w.mask & self.done or w.saved + 1 >= self.rules.saves[i]
        at = (
            OWN
            if not last
            else MARK
            if w.mask & self.done and self.rules.mark == "acknowledged"
            else END
        )
        change = {
            **change,
            "acked": acked,
            "behind": max(change.get("behind", s.behind), (w.epoch, w.number)),
        }
        return change, w._replace(at=at, saved=w.saved + 1, half=()), bad

    def loader(self, s, i, p):
        r = self.rules
        blank = Loader(known=p.known)
        again = blank._replace(at=LIST, need=p.need, shown=p.shown, before=p.names)
        if p.at in (IDLE, LIST, LIST2):
            p = p._replace(need=s.acked, shown=s.seen) if p.at == IDLE else p

            def listed(names):
                top, names = self.top(names), tuple(sorted(names))
                if not top:
                    if r.nothing_twice and names != p.before:
                        return {}, again._replace(before=names), None
                    return {}, blank, self.missing(p, 0)
                walk = self.walk(names, top)
                return (
                    {},
                    blank._replace(
                        at=WALK,
                        epoch=top,
                        todo=walk,
                        need=p.need,
                        shown=p.shown,
                        names=names,
                        before=p.before,
                    ),
                    None,
                )

            yield from self.listing(s, p, listed, LIST2)
        elif p.at == WALK:
            label, outcome, p2 = self.search(s, p)

            def step(p3):
                return self.loader(s, i, p3) if label is None else [(label, {}, p3, None)]

            p3 = p2._replace(limit=())
            if outcome == "again":
                yield label, {}, again, None
            elif outcome == "on":
                yield label, {}, p2, None
            elif p2.decided or not r.bases:
                if r.nothing_twice and not p2.lost and p2.target == NOTHING and p.before != p.names:
                    yield label or "list again", {}, again, None
                elif r.load_looks and r.parts and not self.is_known(p2):
                    yield from step(p3._replace(at=LOOK, names=None, before=None))
                else:
                    yield label or "give up", *self.told(s, p2)
            elif p2.lost and r.leave_damage:
                yield label or "give up", *self.told(s, p2, unsettled=True)
            elif r.settle_late and (p.before is None or self.top(p.before) != p.epoch):
                yield from step(again)
            elif r.readonly:
                yield label or "give up", *self.told(s, p2, unsettled=True)
                if label:
                    yield label, {}, again, None  # it waits, and lists again
            else:
                yield from step(p3._replace(at=SETTLE))
        elif p.at == SETTLE:
            name = f"symlink b{p.epoch}"
            if p.epoch in dict(s.bases) and r.base_exclusive:
                yield f"{name}: exists", {}, again, None
                return
            change = {"bases": self.based(s, p.epoch, p.target)}
            name += f" -> {p.target[0]}-{p.target[1]}"
            if r.settle_follow:
                yield name, change, again, None
            else:
                yield name, *self.told(s, p, change=change)
        elif p.at in (LOOK, LOOK2):

            def looked(names):
                if self.top(names) > p.epoch:
                    return {}, again, None
                return self.told(s, p)

            yield from self.listing(s, p, looked, LOOK2)

    def is_known(self, p):
        """Whether the last load of this process returned what this one is about to return."""
        length = 2 if self.rules.remembers == "save" else 1
        return p.target != NOTHING and p.target[:length] == p.known[:length]

    def told(self, s, p, *, unsettled=False, change=None):
        """A load returns."""
        bad = self.missing(p, p.mask, warned=p.warned, unsettled=unsettled)
        seen = {} if unsettled else {"seen": s.seen | p.mask}
        known = p.known if unsettled or not self.rules.remembers else p.target
        return {**(change or {}), **seen}, Loader(known=known), bad

    @staticmethod
    def based(s, epoch, target):
        return tuple(sorted([b for b in s.bases if b[0] != epoch] + [(epoch, target)]))

    def kept(self, s):
        """Whether a load that nobody disturbs, at this moment.

        Would end with all that was acknowledged.
        """
        if s.flips < self.rules.flips:
            return None
        names = self.names(s)
        p = Loader(epoch=self.top(names), todo=self.walk(names, self.top(names)))
        outcome = "on"
        while outcome == "on":
            label, outcome, p = self.search(s, p)
        if outcome == "again":
            return f"STUCK {label}: every load would list again for ever"
        if s.acked & ~p.mask:
            return (
                f"GONE a load would return {show(p.mask)}, though {show(s.acked)} is acknowledged"
            )
        if s.seen & self.done & ~p.mask:
            seen = show(s.seen & self.done)
            return f"UNDONE a load would return {show(p.mask)}, though {seen} was returned finished"
        return None

    def surroundings(self, s):
        """Owners that remove late, the sweep, and damage."""
        r = self.rules
        bases = dict(s.bases)
        behind = s.behind
        if r.sweep and s.epochs:
            top = max(s.epochs)
            own = [f[:2] for f in s.saves if f[0] == top and f[2] == WHOLE]
            if own:
                behind = max(behind, *own)
            elif top in bases:
                behind = max(behind, bases[top])
            elif not r.settled_only:
                behind = max([behind, *[f[:2] for f in s.saves if f[2] == WHOLE]])
        old = [f for f in s.saves if f[:2] < behind]
        for f in old[:1] if r.oldest_first else old:
            change = {"saves": tuple(x for x in s.saves if x != f)}
            yield f"remove {f[0]}-{f[1]}", change, None, self.kept(s._replace(**change))
        links = s.behind[0] + (not r.top_stays)
        for e in sorted(s.epochs)[:1]:
            if e < links:
                yield f"remove e{e}", {"epochs": s.epochs - {e}}, None, None
        for e, _ in s.bases[:1]:
            if e < links:
                change = {"bases": s.bases[1:]}
                yield f"remove b{e}", change, None, self.kept(s._replace(**change))
        yield from self.prune_claims(s, bases, links)
        if s.flips:
            for f in s.saves:
                if f[2] == WHOLE:
                    saves = put(s.saves, f[0], f[1], DAMAGED, f[3])
                    change = {"saves": saves, "flips": s.flips - 1}
                    yield f"damage {f[0]}-{f[1]}", change, None, None

    def prune_claims(self, s, bases, links):
        """Claimants that remove the links of former claims without a save: base, then epoch."""
        if not self.rules.prune:
            return
        decided, saved = max(bases, default=0), {f[0] for f in s.saves}
        former = [e for e in sorted(s.epochs) if links <= e < decided and e not in saved]
        for e in former[:1]:
            if e in bases:
                name, change = f"b{e}", {"bases": tuple(b for b in s.bases if b[0] != e)}
            else:
                name, change = f"e{e}", {"epochs": s.epochs - {e}}
            yield f"remove {name}", change, None, self.kept(s._replace(**change))


def bit(worker, save):
    return 1 << (worker * 4 + save)


def put(saves, epoch, number, condition, mask):
    return tuple(
        sorted([f for f in saves if f[:2] != (epoch, number)] + [(epoch, number, condition, mask)])
    )


def show(mask):
    return "{" + ",".join(f"{'abcd'[b // 4]}{b % 4 + 1}" for b in range(16) if mask >> b & 1) + "}"
