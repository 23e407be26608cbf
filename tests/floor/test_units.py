"""Durations and sizes as users write them."""

from datetime import timedelta

import pytest

from efsstate import units


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (90, 90),
        (0, 0),
        (1.5, 1.5),
        ("90s", 90),
        ("15m", 900),
        ("6h", 21600),
        ("7d", 604800),
        (" 1.5 h ", 5400),
        ("250ms", 0.25),
        ("1h30m", 5400),
        ("1w 2d", 777600),
        ("1m0.5s", 60.5),
        ("30", 30),
        (timedelta(days=1), 86400),
    ],
)
def test_durations(value, expected):
    assert units.seconds(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        "d",
        "5 fortnights",
        "-1s",
        "1h1h",
        "30m1h",
        "1h30",
        "1h-30m",
        "h30",
        "1 2",
        "1hm",
        -1,
        float("nan"),
        float("inf"),
        "1e999s",
        10**400,
        timedelta(-1),
    ],
)
def test_durations_that_are_none(value):
    with pytest.raises(ValueError, match="ttl"):
        units.seconds(value, "ttl")


@pytest.mark.parametrize("value", [None, True, [], b"1s"])
def test_durations_of_a_wrong_type(value):
    with pytest.raises(TypeError, match="ttl"):
        units.seconds(value, "ttl")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (10, 10),
        ("64MiB", 64 * 2**20),
        ("1.5GB", 15 * 10**8),
        ("2 kib", 2048),
        ("100", 100),
        ("7b", 7),
    ],
)
def test_sizes(value, expected):
    assert units.size(value) == expected


@pytest.mark.parametrize("value", ["", "GB", "3 apples", -1, "-1KB", "1e999"])
def test_sizes_that_are_none(value):
    with pytest.raises(ValueError, match="max_bytes"):
        units.size(value, "max_bytes")


@pytest.mark.parametrize("value", [None, 1.5, True])
def test_sizes_of_a_wrong_type(value):
    with pytest.raises(TypeError, match="max_bytes"):
        units.size(value, "max_bytes")


def test_pauses_grow_and_are_bounded():
    pauses = [pause for pause, _ in zip(units.backoff(0.004, 0.25), range(40), strict=False)]
    assert 0.002 <= pauses[0] <= 0.004 and 0.125 <= pauses[-1] <= 0.25
    assert max(pauses) <= 0.25 and len(set(pauses)) > 20
