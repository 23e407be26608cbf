"""The planner reproduces AWS's own examples, and its numbers add up."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efsstate.cli import app
from efsstate.cli.plan import bar, sparkline
from efsstate.planning import bursting, cost, herd, plan, rates, workload
from efsstate.planning.other_services import others
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
    result = bursting.simulate(account, [10 * MIB * 60] * 1440, minutes=30 * 1440)
    expected = 2.1 * TIB / (10 * MIB - account.baseline) / 60
    assert result.ends == pytest.approx(expected, abs=2)
    assert result.starved > 0 and result.unserved > 0


def test_below_the_baseline_credits_never_end():
    account = bursting.of_storage(100 * GIB, RATES)
    result = bursting.simulate(account, [4 * MIB * 60] * 1440, minutes=365 * 1440)
    assert result.ends is None and result.starved == 0


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 2000), st.integers(1, 2000), st.floats(1, 200))
def test_more_storage_never_shortens_a_burst(first, second, rate):
    small, large = sorted((first, second))
    ends = [
        bursting.simulate(
            bursting.of_storage(stored * GIB, RATES), [rate * MIB * 60] * 1440, minutes=10 * 1440
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


def test_a_herd_of_more_readers_than_can_be_simulated_is_refused():
    work = Workload(model=GIB, environments=10**9)
    with pytest.raises(ValueError, match="environments, herd: 1,000,000,000: at most 100,000"):
        plan.make(work, RATES)


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
    assert round(cost.break_even(RATES, "ia_elastic") / KIB, 1) == 6.8
    assert round(cost.break_even(RATES, "ia") / KIB, 1) == 10.7
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


def test_archive_and_one_zone_have_their_prices():
    """100 GiB of 1 MiB files in Archive cost 0.80, and 100 GiB in One Zone 16.00."""
    archived = Workload(stored=100 * GIB, archive_storage=100 * GIB, entry=MIB)
    assert cost.elastic(archived, RATES).items["archive"] == pytest.approx(0.80)
    small = Workload(stored=GIB, archive_storage=GIB, entry=KIB)
    assert cost.elastic(small, RATES).items["archive"] == pytest.approx(128 * 0.008)
    zonal = cost.bursting(Workload(stored=100 * GIB), RATES, zone="one_zone")
    assert zonal.total == pytest.approx(16.00)
    made = plan.make(archived, RATES)
    problems = {mode.name: mode.problems for mode in made.modes}
    assert problems["elastic"] == []
    assert "Archive storage needs Elastic throughput" in problems["bursting"]


def test_reads_of_cold_storage_are_billed():
    """A thousand reads of 1 MiB a day are 29.3 GiB a month: 0.29 from IA, 0.88 from Archive."""
    work = Workload(stored=GIB, entry=MIB, hits=2000, cold_reads=1000, archive_reads=1000)
    items = cost.elastic(work, RATES).items
    assert items["reads of infrequent access"] == pytest.approx(30_000 / 1024 * 0.01)
    assert items["reads of archive"] == pytest.approx(30_000 / 1024 * 0.03)


def test_a_price_that_is_missing_is_no_zero():
    """One Zone has no price for Infrequent Access in this release: its total is unknown."""
    work = Workload(stored=2 * GIB, cold_storage=GIB, entry=MIB)
    zonal = [mode for mode in plan.make(work, RATES).modes if mode.is_one_zone]
    assert all("no price for its infrequent access" in m.problems[-1] for m in zonal)
    assert plan.make(work, RATES).as_dict()["modes"][-1]["month"] is None


def test_the_same_work_elsewhere():
    """Each service says what it cannot do; ElastiCache bills a unit for each KiB."""
    work = Workload(stored=GIB, hits=1e6, entry=4 * KIB)
    costs = {service.name: service for service in others(work, RATES)}
    assert costs["ElastiCache Serverless"].items == pytest.approx(
        {"memory": 0.084 * 720, "requests": 30 * 4e6 * 2.3e-9}
    )
    assert costs["DynamoDB"].items["reads"] == pytest.approx(30 * 1e6 * 1.25e-7)
    assert costs["S3"].items["requests"] == pytest.approx(30 * 1e6 * 4e-7)
    assert not costs["container image"].items and costs["container image"].reason
    saving = {service.name: service for service in others(Workload(saves=10), RATES)}
    assert all(saving[name].reason for name in ("S3", "S3 Files", "ElastiCache Serverless"))
    loading = {service.name: service for service in others(Workload(model=2 * GIB), RATES)}
    assert loading["container image"].total == pytest.approx(0.20)
    assert not loading["DynamoDB"].items and not loading["ElastiCache Serverless"].items
    huge = {service.name: service for service in others(Workload(model=11 * GIB), RATES)}
    assert huge["container image"].reason == "an image is at most 10 GB"
    beside = Workload(stored=5 * GIB, model=2 * GIB, cold_starts=10)
    reasons = {service.name: service.reason for service in others(beside, RATES)}
    assert reasons["container image"] == "it holds the model, and not the other 3.0 GiB"


def test_nothing_to_plan_is_told(run):
    assert "nothing to plan" in run(code=2)
    assert "nothing to plan" in run("--mode", "bursting", "--region", "us-east-1", code=2)


def test_an_idle_day_earns_what_the_guide_says(run):
    """The guide rounds the baseline to 5 MiB/s, and says 432,000 MiB, 72 minutes, or 76."""
    text = run("--stored", "100GiB")
    assert "earns 421,875 MiB of credits: 70 minutes of full burst, 74 with those" in text


def test_a_service_without_prices_is_left_out():
    rates_of = {name: table for name, table in RATES.items() if name != "elasticache"}
    (cache,) = [s for s in others(Workload(), rates_of) if s.name.startswith("ElastiCache")]
    assert cache.items == {} and "prices are missing for us-east-1" in cache.reason


def test_too_many_operations_are_a_problem():
    """A million hits a second are three million requests; Elastic reads 250,000 a second."""
    made = plan.make(Workload(hits=1e6 * DAY), RATES)
    assert all("read operations a second" in mode.problems[0] for mode in made.modes)
    assert made.best is None


def test_too_little_provisioned_is_a_problem():
    work = Workload(stored=GIB, puts=100 * DAY, entry=MIB)
    (mode,) = [m for m in plan.make(work, RATES, provision=10).modes if m.mode == "provisioned"]
    assert mode.problems == ["the traffic needs 101.2 MiB/s, and 10 are provisioned"]
    (mode,) = [m for m in plan.make(work, RATES).modes if m.mode == "provisioned"]
    assert mode.problems == [] and mode.name == "provisioned 102 MiB/s"


@settings(deadline=None, max_examples=60)
@given(
    st.builds(
        Workload,
        stored=st.integers(TIB, 2 * TIB),
        cold_storage=st.integers(0, TIB // 2),
        archive_storage=st.integers(0, TIB // 2),
        hits=st.integers(0, 10**6),
        puts=st.integers(0, 10**6),
        saves=st.integers(0, 10**5),
        entry=st.integers(1, MIB),
    )
)
def test_no_item_of_any_cost_is_negative(work):
    costs = [cost.elastic(work, RATES), cost.bursting(work, RATES)]
    costs += [cost.provisioned(work, RATES, 10), *others(work, RATES)]
    for each in costs:
        assert each.total == pytest.approx(sum(each.items.values()))
        assert all(value >= 0 for value in each.items.values())


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


@settings(max_examples=100)
@given(
    st.builds(
        Workload,
        stored=st.integers(0, 10**17),
        entry=st.integers(0, 10**12),
        hits=st.floats(0, 1e17),
        model=st.integers(1, 10**12),
        cold_starts=st.floats(0, 1e6),
        environments=st.integers(0, 10**6),
        timeout=st.floats(0, 1e6),
        busy_hours=st.floats(0.01, 24),
        reads=st.floats(0, 1e12),
    )
)
def test_any_workload_survives_its_file(tmp_path_factory, work):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(workload.dump(work))
    assert Workload(**workload.load(str(path))) == work


@settings(max_examples=200)
@given(st.integers(0, 2**60), st.sampled_from(["KiB", "MiB", "GiB", "TiB"]))
def test_units_survive_round_trips(number, unit):
    factor = {"KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}[unit]
    text = f"{number // factor}{unit}"
    assert workload.parse("stored", text) == number // factor * factor
    per_day = number % 10**6
    assert workload.parse("hits", f"{per_day}/hour") == 24 * per_day
    assert workload.parse("timeout", f"{per_day}s") == per_day


@pytest.mark.parametrize(
    "text",
    [
        "stored = ",
        "storage = 1",
        "hits = '5 per day'",
        "stored = 'many'",
        "hits = true",
        "environments = 2.5",
    ],
)
def test_a_bad_file_is_told(tmp_path, text):
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises((ValueError, TypeError)):
        Workload(**workload.load(str(tmp_path / "plan.toml")))


# The command


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
        ("--stored", "100"),
        ("--timeout", "60"),
        ("--environments", "2.5"),
        ("--model", "1GiB", "--herd", "nine"),
        ("--herd", "9"),
        ("--cold-starts", "100/day"),
        ("--hits", "10/day", "--cold-reads", "11/day"),
        ("--provision", "-1"),
        ("--provision", "nan"),
        ("--hits", "nan"),
        ("--hits", "1e30"),
        ("--mode", "maximum"),
    ],
)
def test_contradictions_are_exit_code_2(run, arguments):
    assert run(*arguments, code=2)


def test_sources_of_a_workload_exclude_each_other(run, tmp_path):
    (tmp_path / "f").write_text("")
    path = str(tmp_path / "f")
    assert "give one of them" in run("--file", path, "--from-events", path, code=2)


def test_a_mode_that_does_not_hold_is_exit_code_1(run):
    work = ("--stored", "1GiB", "--model", "2GiB", "--environments", "220", "--timeout", "30s")
    text = run(*work, "--mode", "bursting", code=1)
    assert "bursting does not hold: 220 of 220 cold starts" in text
    assert "does not hold" not in run(*work, "--mode", "elastic")


def test_the_plan_is_written_as_a_picture(run, tmp_path):
    path = tmp_path / "plan.svg"
    run("--stored", "100GiB", "--hits", "1M/day", "--svg", str(path))
    text = path.read_text()
    assert text.startswith("<svg") and "elastic" in text and "█" in text


@pytest.mark.parametrize("option", ["--save", "--svg", "--prices"])
def test_a_file_is_overwritten_only_with_force(run, tmp_path, option):
    path = tmp_path / "mine"
    path.write_text("mine")
    work = ["--stored", "100GiB", option, str(path)]
    work += ["--update-prices"] if option == "--prices" else []
    assert "--force" in run(*work, code=2) and path.read_text() == "mine"
    if option != "--prices":  # which asks AWS
        run(*work, "--force")
        assert path.read_text() != "mine"


def test_a_picture_and_a_document_exclude_each_other(capsys):
    assert app.run(["plan", "--svg", "plan.svg", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["exit"] == 2


def test_sparklines_and_bars():
    assert sparkline([0, 1, 2, 4], width=4) == "▁▃▅█"
    assert sparkline([], width=4) == ""
    assert sparkline([5.0] * 1000, width=52) == "█" * 52
    assert sparkline([0.0] * 99 + [9.0], width=10)[-1] == "█", "a peak is never left out"
    assert [bar(value, 8, width=4).plain for value in (8, 4, 1, 0)] == ["████", "██", "▌", ""]
    assert bar(float("inf"), 8).plain == "" and bar(1, 0).plain == ""


@pytest.mark.parametrize("rate", [0.5, 3, 4.8828125, 6, 10, 200])
@pytest.mark.parametrize("days", [1, 2, 9.5, 40])
def test_rounds_that_repeat_are_the_same_as_minutes(rate, days):
    """A year is simulated round by round; minute by minute, in one list, gives the same."""
    account = bursting.of_storage(100 * GIB, RATES)._replace(most=0.2 * TIB)
    day = [rate * MIB * 60] * 480 + [0.0] * 960
    minutes = int(1440 * days)
    whole = (day * (minutes // 1440 + 1))[:minutes]
    rounds = bursting.simulate(account, day, minutes=minutes)
    assert rounds == bursting.simulate(account, whole)
    assert len(rounds.balance) == minutes // 60
