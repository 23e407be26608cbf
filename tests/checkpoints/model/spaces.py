"""What is explored: spaces that must be free of violations, and rules that, broken.

Must lead to one.
"""

THREE = {"saves": (1, 1, 1), "claims": (1, 1, 1)}
SMALL = {"saves": (1, 1)}

SPACES = {
    "2 workers, 1 loader, the sweep": {},
    "3 workers, no loader": {**THREE, "loaders": 0},
    "two replies are lost": {"lost": 2, "loaders": 0},
    "a save ends in an error": {**SMALL, "errors": 1},
    "a save is damaged": {**SMALL, "flips": 1},
    "workers crash and start again": {"claims": (2, 2), "loaders": 0},
    "a rebase, whose epoch is far above": {**SMALL, "ahead": 2},
    "a rebase among workers that crash": {**SMALL, "ahead": 2, "claims": (2, 2), "loaders": 0},
    "a loader that can't write": {"readonly": True},
    "listings in parts, epochs first": {**SMALL, "parts": "epochs", "remembers": "save"},
    "listings in parts, bases first": {**SMALL, "parts": "bases"},
    "listings in parts, saves first": {**SMALL, "parts": "saves"},
    "listings in parts, odd names first": {"parts": "odd", "saves": (3,), "claims": (1,)},
    "listings in parts, even names first": {"parts": "even", "saves": (3,), "claims": (1,)},
}

FULL = {
    "3 workers, 1 loader": THREE,
    "2 workers, 2 loaders": {"loaders": 2},
    "2 workers, a reply is lost": {**SMALL, "lost": 1},
    "2 workers, a worker crashes and starts again": {**SMALL, "claims": (2, 1)},
    "2 workers, a save ends in an error": {"errors": 1},
    "2 workers, a save is damaged": {"flips": 1},
    "2 workers that crash and start again": {**SMALL, "claims": (2, 2)},
    "3 workers, a reply is lost": {**THREE, "lost": 1, "loaders": 0, "sweep": False},
    "an error, a lost reply": {**SMALL, "errors": 1, "lost": 1},
    **{
        f"2 workers, listings in parts, {part} first": {"parts": part}
        for part in ("epochs", "bases", "saves", "odd", "even")
    },
    "listings in parts, epochs first, no load remembers": {**SMALL, "parts": "epochs"},
    **{
        f"listings in parts, {part} first, a load remembers": {
            **SMALL,
            "remembers": "save",
            "parts": part,
        }
        for part in ("bases", "saves")
    },
}

BROKEN = {
    "a look before a finish is told": {
        "claim_looks": False,
        **THREE,
        "loaders": 0,
        "parts": "epochs",
    },
    "a second look where listings come in parts": {"load_looks": False, "parts": "epochs"},
    "a base made from a listing later than the epoch": {"settle_late": False, "parts": "saves"},
    "saying twice that nothing was saved": {"nothing_twice": False, "parts": "odd"},
    "an exclusive create of the epoch": {"epoch_exclusive": False},
    "a listing after it": {"list_after_epoch": False},
    "a look after the save": {"look": "never"},
    "that look being after": {"look": "before"},
    "bases": {"bases": False},
    "an exclusive create of the base": {"base_exclusive": False},
    "saves that appear whole": {"whole": False},
    "listing again when a listed name is gone": {"relist": False},
    "removal behind what is acknowledged alone": {"remove": "published"},
    "removal of the oldest first": {
        "oldest_first": False,
        "parts": "even",
        "saves": (3,),
        "claims": (1,),
    },
    "the highest epoch staying": {"top_stays": False, "claims": (2, 1)},
    "a sweep of settled epochs alone": {"settled_only": False},
    "a claim that refuses damage": {"refuse_damage": False, "flips": 1},
    "a load that leaves damage to claims": {"leave_damage": False, "flips": 1},
    "a shard marked after its finish is acknowledged": {"mark": "published"},
}

BROKEN_FULL = {
    "a second look for all saves but the one that was returned": {
        "remembers": "epoch",
        "parts": "epochs",
    },
    "following the base that one made": {"settle_follow": False, **SMALL, "claims": (2, 1)},
}
