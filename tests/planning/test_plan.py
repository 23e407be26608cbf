"""The planner reproduces AWS's own examples, and its numbers add up."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efsstate.cli import app
from efsstate.planning import bursting, cost, herd, plan, rates, workload
from efsstate.planning.rates import GIB, KIB, MIB, TIB
from efsstate.planning.workload import DAY, Workload

RATES = rates.shipped()


# Credits


def test_a_day_of_credits_for_100_gib():
    """AWS's guide rounds the baseline to 5 MiB/s: 432,000 MiB a day, 72 minutes, or 76."""
    exact = bursting.of_storage(100 * GIB, RATES)
    assert exact.earned(DAY) / MIB == 421_875
    rounded = exact._replace(baseline=5 * MIB)
    assert rounded.earned(DAY) / MIB == 432_000
    earned = rounded.earned(DAY)
    assert rounded.seconds_of_burst(earned, accruing=False) / 60 == 72
    assert round(rounded.seconds_of_burst(earned) / 60) == 76


@pytest.mark.parametrize(
    ("stored", "baseline", "burst", "most"),
    [
        (0, 1, 100, 2.1),
        (10 * GIB, 1, 100, 2.1),
        (100 * GIB, 4.8828125, 100, 2.1),
        (TIB, 50, 100, 2.1),
        (4 * TIB, 200, 400, 8.4),
    ],
)
def test_credits_by_storage(stored, baseline, burst, most):
    account = bursting.of_storage(stored, RATES)
    assert (account.baseline / MIB, account.burst / MIB) == (baseline, burst)
    assert account.most / TIB == pytest.approx(most)


def test_credits_end_when_more_is_spent_than_earned():
    """100 GiB, 10 MiB/s metered: 2.1 TiB last for 2.1 TiB / (10 - 4.88 MiB/s), five days."""
    account = bursting.of_storage(100 * GIB, RATES)
    result = bursting.simulate(account, [10 * MIB * 60] * 1440, repeat=30)
    expected = 2.1 * TIB / (10 * MIB - account.baseline) / 60
    assert result.ends == pytest.approx(expected, abs=2)
    assert result.starved > 0 and result.unserved > 0


def test_below_the_baseline_credits_never_end():
    account = bursting.of_storage(100 * GIB, RATES)
    result = bursting.simulate(account, [4 * MIB * 60] * 1440, repeat=365)
    assert result.ends is None and result.starved == 0


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 2000), st.integers(1, 2000), st.floats(1, 200))
def test_more_storage_never_shortens_a_burst(first, second, rate):
    small, large = sorted((first, second))
    ends = [
        bursting.simulate(
            bursting.of_storage(stored * GIB, RATES), [rate * MIB * 60] * 1440, repeat=10
        ).ends
        for stored in (small, large)
    ]
    assert ends[1] is None or (ends[0] is not None and ends[0] <= ends[1])


# Herds


def test_220_cold_starts_of_a_published_outage():
    """2 GiB each, 625 GiB stored, no credits: 82 minutes until the last, 0.4 MiB/s each."""
    work = Workload(stored=625 * GIB, model=2 * GIB, environments=220, timeout=900)
    fate = plan.simulate_herd(work, RATES, "bursting", 0, 220)
    assert round(fate.last / 60) == 82
    assert round(fate.slowest / MIB, 1) == 0.4
    assert fate.late == 220


def test_a_reader_alone_is_as_fast_as_its_network():
    fate = herd.simulate(1, 745 * MIB, throughput=1e12, network=74.5 * MIB, starts=100, timeout=60)
    assert fate.last == pytest.approx(10) and fate.late == 0


def test_credits_carry_the_first_readers():
    slow = herd.simulate(10, GIB, throughput=30 * MIB, network=1e12, starts=1e9, timeout=60)
    fast = herd.simulate(
        10, GIB, throughput=30 * MIB, network=1e12, starts=1e9, timeout=60,
        balance=TIB, burst=300 * MIB, baseline=10 * MIB,
    )  # fmt: skip
    assert slow.last == pytest.approx(10 * 1024 / 30, rel=1e-3)
    assert fast.last == pytest.approx(10 * 1024 / 300, rel=1e-3)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 300), st.integers(1, 300), st.floats(1, 500))
def test_a_larger_herd_is_never_faster(first, second, throughput):
    small, large = sorted((first, second))
    ends = [
        herd.simulate(
            n, GIB, throughput=throughput * MIB, network=74.5 * MIB, starts=100, timeout=60
        ).last
        for n in (small, large)
    ]
    assert ends[0] <= ends[1] * (1 + 1e-6)
    assert ends[1] >= GIB * large / (throughput * MIB) * (1 - 1e-6)


# Costs


def test_prices_to_the_cent():
    """100 GiB cost 30 dollars a month in bursting, and 10 MiB/s on top of the included 4.88."""
    work = Workload(stored=100 * GIB)
    assert cost.bursting(work, RATES).total == pytest.approx(30.00)
    assert cost.provisioned(work, RATES, 10).total == pytest.approx(30 + (10 - 4.8828125) * 6)
    assert cost.elastic(Workload(puts=1, entry=GIB), RATES).items["writes"] == pytest.approx(
        30 * (0.06 + 3 * 4096 / GIB * 0.06)
    )


def test_small_operations_are_metered_at_least():
    """A million hits of 1 KiB a day are metered as 32 KiB and two times 4 KiB each."""
    items = cost.elastic(Workload(hits=1e6, entry=KIB), RATES).items
    assert items["reads"] == pytest.approx(30 * 1e6 * (32 + 8) * KIB / GIB * 0.03)


def test_where_infrequent_access_loses():
    assert round(cost.break_even(RATES, elastic=True) / KIB, 1) == 6.8
    assert round(cost.break_even(RATES, elastic=False) / KIB, 1) == 10.7
    cheap = Workload(stored=GIB, cold_storage=GIB, entry=MIB)
    dear = Workload(stored=GIB, cold_storage=GIB, entry=KIB)
    standard = cost.elastic(Workload(stored=GIB), RATES).total
    assert cost.elastic(cheap, RATES).total < standard < cost.elastic(dear, RATES).total
    assert cost.elastic(dear, RATES).total / standard == pytest.approx(6.8, abs=0.03)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, TIB), st.integers(0, 10**7), st.integers(1, MIB))
def test_costs_add_up(stored, hits, entry):
    work = Workload(stored=stored, hits=hits, entry=entry)
    whole = cost.elastic(work, RATES)
    assert whole.total == pytest.approx(sum(whole.items.values())) and whole.total >= 0
    double = cost.elastic(Workload(stored=2 * stored, hits=2 * hits, entry=entry), RATES)
    assert double.total == pytest.approx(2 * whole.total)


# Workloads


@pytest.mark.parametrize(
    ("text", "per_day"),
    [
        ("2000", 2000),
        ("5M/day", 5e6),
        ("100/hour", 2400),
        ("3/minute", 4320),
        ("1k/second", 8.64e7),
    ],
)
def test_counts_have_units(text, per_day):
    assert workload.rate(text, "hits") == per_day


def test_a_workload_survives_its_file(tmp_path):
    work = Workload(stored=100 * GIB, hits=5e6, model=2 * GIB, environments=500, busy_hours=8.0)
    (tmp_path / "plan.toml").write_text(workload.dump(work))
    assert Workload(**workload.load(str(tmp_path / "plan.toml"))) == work


@pytest.mark.parametrize(
    "text", ["stored = ", "storage = 1", "hits = '5 per day'", "stored = 'many'", "hits = true"]
)
def test_a_bad_file_is_told(tmp_path, text):
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises((ValueError, TypeError)):
        Workload(**workload.load(str(tmp_path / "plan.toml")))


# The command


@pytest.fixture
def run(capsys):
    def run(*arguments, code=0):
        assert app.run(["plan", *arguments]) == code
        out, err = capsys.readouterr()
        return err if code else out

    return run


def test_the_command_advises(run):
    text = run("--stored", "625GiB", "--model", "2GiB", "--environments", "220", "--timeout", "60s")
    assert "82 minutes" in text and "cheapest mode that holds" in text
    assert "at most" in text and "not checked against a bill" in text


def test_the_command_gives_one_document(run):
    out = run("--stored", "100GiB", "--hits", "5M/day", "--json")
    document = json.loads(out)
    assert [mode["mode"] for mode in document["modes"]][:2] == ["elastic", "bursting"]
    assert document["modes"][1]["month"] == 30.00
    assert document["modes"][0]["items"]["storage"] == 30.00
    assert document["rates_read"] == RATES["read"]


def test_a_file_is_written_and_read(run, tmp_path):
    path = str(tmp_path / "plan.toml")
    first = run("--stored", "100GiB", "--puts", "100k", "--save", path)
    assert run("--file", path) == first


def test_own_prices_take_the_place(run, tmp_path):
    path = tmp_path / "prices.toml"
    path.write_text("[storage]\nstandard = 1.0\n")
    document = json.loads(run("--stored", "100GiB", "--prices", str(path), "--json"))
    assert document["modes"][1]["month"] == 100.00


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("prices", "[storage]\nstandart = 1\n"),
        ("prices", "[storage]\nstandard = -1\n"),
        ("prices", "storage = 1\n"),
        ("prices", "what"),
    ],
)
def test_bad_prices_are_a_mistake_in_the_line(run, tmp_path, name, text):
    (tmp_path / "file.toml").write_text(text)
    assert "file.toml" in run(f"--{name}", str(tmp_path / "file.toml"), code=2)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--stored", "many"),
        ("--hits", "5/fortnight"),
        ("--busy-hours", "25"),
        ("--stored", "1GiB", "--cold-storage", "2GiB"),
        ("--timeout", "-5s"),
    ],
)
def test_contradictions_are_exit_code_2(run, arguments):
    assert run(*arguments, code=2)
