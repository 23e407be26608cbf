"""Many hits at once over a slow link: `map` and `get_many`, with reads in flight, beside a loop."""

from benchmarks import measure
from benchmarks.subjects import Cached, OurCache, value

COUNT, ROUNDS = 64, 5


def rows(a, b, requests):
    """Measure five rounds of 64 entries that nobody on b has read, each way in turn.

    Time and requests are an entry's; the ratio is the best round's.
    """
    function, cache = Cached(a), OurCache(a)
    ways = {
        "efsstate `cached`, a loop": lambda reader, keys: [reader[0](key) for key in keys],
        "efsstate `map`": lambda reader, keys: reader[0].map(keys),
        "efsstate `Cache`, a loop": lambda reader, keys: [reader[1].get(key) for key in keys],
        "efsstate `get_many`": lambda reader, keys: list(reader[1].get_many(keys).values()),
    }
    keys = {
        (name, i): [f"{name}-{i}-{n}" for n in range(COUNT)] for name in ways for i in range(ROUNDS)
    }
    for key in [key for some in keys.values() for key in some] + [f"warm-{n}" for n in range(256)]:
        function.put(key), cache.put(key)
    reader = Cached(b).call, OurCache(b).cache
    for n in range(256):  # the folders are known
        reader[0](f"warm-{n}"), reader[1].get(f"warm-{n}")
    found = {name: [] for name in ways}
    for i in range(ROUNDS):
        for name, way in ways.items():
            some = keys[name, i]

            def check(_, got, some=some):
                return None if list(got) == [value(key) for key in some] else "wrong"

            found[name].append(
                measure.run(
                    lambda some, way=way: way(reader, some), [some], requests=requests, check=check
                )
            )
    for name, figures in found.items():
        one = measure.merged(figures)
        one["time"] |= {at: one["time"][at] / COUNT for at in ("median", "low", "high", "best")}
        if "requests" in one:
            one["requests"] /= COUNT
        loop = found[
            "efsstate `Cache`, a loop" if "get_many" in name else "efsstate `cached`, a loop"
        ]
        one["ratio"] = max(
            slow["time"]["median"] / fast["time"]["median"]
            for slow, fast in zip(loop, figures, strict=False)
        )
        yield {"row": "many", "subject": name, **one}
