"""Limits and prices: dated, by region, replaceable, and read from a price list on loopback."""

import datetime as dt
import json
import tomllib

import pytest
from tests.planning.conftest import answering

from efsstate.planning import cost, rates
from efsstate.planning.workload import Workload

# Usage types as the EFS guide lists them, and prices that no region has.
PRODUCTS = [
    ("EUC1-TimedStorage-ByteHrs", "GB-Mo", "0.36", None),
    ("EUC1-TimedStorage-Z-ByteHrs", "GB-Mo", "0.19", None),
    ("EUC1-IATimedStorage-ByteHrs", "GB-Mo", "0.03", None),
    ("EUC1-IATimedStorage-ET-ByteHrs", "GB-Mo", "0.02", None),
    ("EUC1-ArchiveTimedStorage-ByteHrs", "GB-Mo", "0.01", None),
    ("EUC1-IADataAccess-Bytes", "GB", "0.012", "Read"),
    ("EUC1-IADataAccess-Bytes", "GB", "0.013", "Write"),
    ("EUC1-ETDataAccess-Bytes", "GB", "0.04", "Read"),
    ("EUC1-ETDataAccess-Bytes", "GB", "0.07", "Write"),
    ("EUC1-ProvisionedTP-MiBpsHrs", "MiBps-Mo", "7.20", None),
    ("EUC1-IncludedTP-MiBpsHrs", "MiBps-Mo", "0.00", None),
]


def product(usage, unit, price, access):
    attributes = {"usagetype": usage, "regionCode": "eu-central-1"}
    if access:
        attributes["accessType"] = access
    dimension = {"unit": unit, "pricePerUnit": {"USD": price}}
    terms = {"OnDemand": {"A.B": {"priceDimensions": {"A.B.C": dimension}}}}
    return json.dumps({"product": {"attributes": attributes}, "terms": terms})


def price_list(operation, request):
    """The Price List Query API, two pages of it."""
    assert operation == "GetProducts" and request["ServiceCode"] == "AmazonEFS"
    (region,) = [row["Value"] for row in request["Filters"] if row["Field"] == "regionCode"]
    products = [product(*row) for row in PRODUCTS] if region == "eu-central-1" else []
    half = len(products) // 2
    if "NextToken" in request:
        return 200, {"FormatVersion": "aws_v1", "PriceList": products[half:]}
    answer = {"FormatVersion": "aws_v1", "PriceList": products[:half]}
    return 200, answer | ({"NextToken": "2"} if products else {})


def test_prices_are_read_and_written(aws, run, monkeypatch, tmp_path):
    """The file that it writes has the region and the day, and the plan is made with it."""
    path = tmp_path / "prices.toml"
    days = {dt.datetime.now(dt.UTC).date().isoformat()}
    with answering(price_list) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        text = run(
            "--update-prices", "--prices", str(path), "--region", "eu-central-1",
            "--stored", "100GiB",
        )  # fmt: skip
    days.add(dt.datetime.now(dt.UTC).date().isoformat())  # another one, at midnight
    assert "$36.00" in text and "rates of eu-central-1 as read on" in text
    written = tomllib.loads(path.read_text())
    assert written["region"] == "eu-central-1"
    assert written["read"] in days
    assert written["elastic"] == {"read_gb": 0.04, "write_gb": 0.07}
    assert written["storage"]["ia_access_gb"] == 0.012
    assert written["provisioned"]["month_per_mib"] == 7.20


def test_absent_prices_are_named(aws, capsys, monkeypatch, tmp_path):
    from efsstate.cli import app

    with answering(price_list) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        line = ["--prices", str(tmp_path / "p.toml"), "--region", "eu-central-1"]
        assert app.run(["plan", "--update-prices", *line]) == 0
    assert "[storage] archive_access_gb" in capsys.readouterr().err


def test_a_list_without_the_region_is_told(aws, run, monkeypatch, tmp_path):
    path = tmp_path / "prices.toml"
    with answering(price_list) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        line = ["--update-prices", "--prices", str(path), "--region", "xx-moon-1"]
        assert "no EFS prices for xx-moon-1" in run(*line, code=3)
    assert not path.exists()


def test_a_refused_price_list_is_told(aws, run, monkeypatch, tmp_path):
    answer = {"__type": "AccessDeniedException", "message": "not allowed to GetProducts"}
    with answering(lambda *_: (400, answer)) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        line = ["--update-prices", "--prices", str(tmp_path / "p.toml")]
        assert "not allowed to GetProducts" in run(*line, code=3)


def test_prices_are_not_updated_into_nowhere(run):
    assert "--prices FILE" in run("--update-prices", code=2)


def test_a_region_without_prices_is_told(run):
    text = run("--stored", "1GiB", "--region", "eu-central-1", code=3)
    assert "eu-central-1: prices are missing" in text and "us-east-1" in text


def test_a_file_for_another_region_is_refused(run, tmp_path):
    path = tmp_path / "prices.toml"
    path.write_text('region = "eu-west-1"\n[storage]\nstandard = 0.33\n')
    text = run("--prices", str(path), "--region", "us-east-1", code=2)
    assert "its prices are for eu-west-1, not for us-east-1" in text
    assert "eu-west-1: prices are missing ([elastic] read_gb" in run("--prices", str(path), code=3)


IRELAND = """region = "eu-west-1"
read = "2026-11-30"
source = "a bill"
[storage]
standard = 0.33
[elastic]
read_gb = 0.03
write_gb = 0.07
[provisioned]
month_per_mib = 6.60
"""


def test_a_region_is_planned_by_a_file_of_four_prices(run, tmp_path):
    """Modes and services that lack a price are named, and none is guessed."""
    path = tmp_path / "prices.toml"
    path.write_text(IRELAND)
    line = ["--prices", str(path), "--stored", "100GiB", "--hits", "1k/day"]
    text = run(*line, "--region", "eu-west-1")
    assert "$33.00" in text
    assert "there is no price for its storage" in text  # One Zone
    for place in ("[s3]", "[dynamodb] gb", "[elasticache]"):
        assert f"its prices are missing for eu-west-1 ({place})" in text
    assert "rates of eu-west-1 as read on 2026-11-30" in text and "a bill" in text
    answer = json.loads(run(*line, "--json"))
    months = {mode["mode"]: mode["month"] for mode in answer["modes"]}
    assert months["bursting"] == 33.0 and months["bursting, one zone"] is None


def test_a_mode_without_its_price_is_not_said_to_fail(run, tmp_path):
    path = tmp_path / "prices.toml"
    path.write_text(IRELAND)
    line = ["--prices", str(path), "--stored", "100GiB", "--cold-storage", "10GiB"]
    text = run(*line, "--entry", "1MiB")
    assert "No mode that holds has all its prices for eu-west-1" in text
    assert "--update-prices" in text and "raise the timeout" not in text


def test_the_second_region_of_this_release(run):
    text = run("--region", "ap-northeast-1", "--stored", "100GiB", "--provision", "16")
    assert "$36.00" in text
    # 16 MiB/s, of which 100 GiB include 4.88.
    assert f"${36 + (16 - 100 * 50 / 1024) * 7.20:.2f}" in text
    assert "2026-09-17" in text


def test_limits_are_of_the_region(tmp_path):
    path = tmp_path / "prices.toml"
    path.write_text(
        "[storage]\nstandard = 1\n[elastic]\nread_gb = 1\nwrite_gb = 1\n"
        "[provisioned]\nmonth_per_mib = 1\n"
    )
    read = {region: rates.load(str(path), region) for region in ("eu-central-1", "eu-west-3")}
    assert [read[region]["elastic"]["read"] for region in read] == [60 * 1024, 20 * 1024]
    assert [read[region]["bursting"]["read"] for region in read] == [3072, 3072]
    assert rates.shipped()["bursting"]["write"] == 3072
    assert rates.shipped()["provisioned"]["read"] == 10 * 1024


def test_one_load_does_not_change_the_next(tmp_path):
    path = tmp_path / "prices.toml"
    path.write_text("[storage]\nstandard = 9\n[bursting]\nread = 1\n")
    assert rates.load(str(path))["storage"]["standard"] == 9
    assert rates.shipped()["storage"]["standard"] == 0.30
    assert rates.shipped()["bursting"]["read"] == 5120


@pytest.mark.parametrize(
    ("read", "age"),
    [
        ("2026-11", "read this month"),
        ("2026-09", "2 months old"),
        ("2025-11", "12 months old"),
        ("2026-11-28", "1 day old"),
        ("2026-11-29", "read today"),
        ("2026-10-30", "30 days old"),
        ("", "of unknown age"),
        ("in spring", "of unknown age"),
        ("2026-13", "of unknown age"),
    ],
)
def test_the_age_of_data(read, age):
    assert rates.age(read, dt.date(2026, 11, 29)) == age


def test_a_published_example_to_the_cent():
    """AWS's page: 100 GB for 15 days and 250 GB for 16 of March are 177 GB-months, $53.10."""
    gigabyte_months = (100 * 15 * 24 + 250 * 16 * 24) // 744
    assert gigabyte_months == 177
    work = Workload(stored=gigabyte_months * rates.GIB)
    assert round(cost.bursting(work, rates.shipped()).total, 2) == 53.10


def test_every_file_of_prices_has_a_date_and_a_source():
    for region in rates.regions():
        prices = rates.shipped(region)
        assert prices["region"] == region and prices["source"]
        assert rates.age(prices["read"], dt.date(2030, 1, 1)).endswith("old")
