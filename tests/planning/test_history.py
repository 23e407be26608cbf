"""A file system's history, from moto's CloudWatch on loopback."""

import datetime as dt
import json
import time

import boto3
import pytest
from moto.server import ThreadedMotoServer

from efsstate.errors import EfsStateError
from efsstate.planning import cloudwatch, rates
from efsstate.planning.history import History
from efsstate.planning.rates import GIB, MIB

KEYS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
REGION = "us-east-1"
MISSING = "fs-0123456789abcdef0"


@pytest.fixture(scope="module")
def moto():
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def client(moto):
    clients = {
        service: boto3.client(service, region_name=REGION, endpoint_url=moto, **KEYS)
        for service in ("cloudwatch", "efs")
    }
    return clients.__getitem__


@pytest.fixture
def at_moto(aws, moto, monkeypatch):
    """The command's clients talk to moto."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)


def new_file_system(client, token):
    made = client("efs").create_file_system(CreationToken=token, ThroughputMode="bursting")
    return made["FileSystemId"]


def put(client, file_system, metric, minute, values, **dimensions):
    """Put values of one minute as EFS does: a value for each operation."""
    names = {"FileSystemId": file_system, **dimensions}
    datum = {
        "MetricName": metric,
        "Dimensions": [{"Name": key, "Value": value} for key, value in names.items()],
        "Timestamp": dt.datetime.fromtimestamp(minute, dt.UTC),
    }
    data = [{**datum, "Value": value} for value in values]
    client("cloudwatch").put_metric_data(Namespace="AWS/EFS", MetricData=data)


def plant(client, token, minutes, *, ago=7200):
    """A file system with 100 GiB that reads 3 MiB and writes 1 MiB in each of so many minutes."""
    file_system = new_file_system(client, token)
    start = (int(time.time()) - ago) // 60 * 60
    for minute in range(minutes):
        moment = start + 60 * minute
        put(client, file_system, "DataReadIOBytes", moment, [MIB] * 3)
        put(client, file_system, "DataWriteIOBytes", moment, [MIB])
        put(client, file_system, "MetadataReadIOBytes", moment, [4096] * 2)
        put(client, file_system, "MeteredIOBytes", moment, [2 * MIB])
    for metric, minute, value in (
        ("BurstCreditBalance", 0, 2**40),
        ("BurstCreditBalance", minutes - 1, 2**40),
    ):
        put(client, file_system, metric, start + 60 * minute, [value])
    for kind, value in (("Total", 100 * GIB), ("Standard", 80 * GIB), ("IA", 20 * GIB)):
        put(client, file_system, "StorageBytes", start, [value], StorageClass=kind)
    return file_system


def test_a_history_is_read_by_minute(client):
    """The minutes without data are counted as gaps, and the mean day has them as idle."""
    file_system = plant(client, "by minute", 6)
    history = cloudwatch.read(file_system, days=1, region=REGION, client=client)
    assert (history.minutes, history.gaps, history.mode) == (1440, 1434, "bursting")
    assert sum(history.metered()) == 12 * MIB and max(history.metered()) == 2 * MIB
    assert history.balance == 2**40
    work = history.workload()
    assert (work.reads, work.read_size) == (18, MIB)
    assert (work.writes, work.write_size, work.other_reads) == (6, MIB, 12)
    assert (work.stored, work.cold_storage, work.standard) == (100 * GIB, 20 * GIB, 80 * GIB)


def test_pages_of_an_answer_are_followed():
    """A value of a second page is not lost."""

    class Paged:
        def get_paginator(self, operation):
            assert operation == "get_metric_data"
            return self

        def paginate(self, MetricDataQueries, StartTime, **_):  # noqa: N803 - as boto3 has it
            identity = MetricDataQueries[0]["Id"]
            for minute, value in ((1, 10.0), (2, 20.0)):
                moment = StartTime + dt.timedelta(minutes=minute)
                row = {"Id": identity, "Timestamps": [moment], "Values": [value]}
                yield {"MetricDataResults": [row]}

        def describe_file_systems(self, **_):
            return {"FileSystems": [{"ThroughputMode": "elastic"}]}

    history = cloudwatch.read(MISSING, days=1, region=REGION, client=lambda _: Paged())
    assert history.sums["MeteredIOBytes"] == {1: 10.0, 2: 20.0}


def test_the_simulation_is_checked_against_the_balance():
    """An hour at 10 MiB/s metered, 100 GiB: the balance falls by 10 less the baseline."""
    history = History(MISSING, REGION, 0.0, 61, stored={"Standard": 100 * GIB})
    history.sums["MeteredIOBytes"] = dict.fromkeys(range(61), 600 * MIB)
    spent = 3600 * (10 - 4.8828125) * MIB
    history.sums["BurstCreditBalance"] = {0: 2**40, 60: 2**40 - spent}
    measured, simulated = history.check(rates.shipped())
    assert simulated == pytest.approx(measured, rel=1e-9)


def test_the_command_plans_from_a_history(client, at_moto, run):
    file_system = plant(client, "command", 4)
    document = json.loads(
        run("--file-system", file_system, "--days", "1", "--region", REGION, "--json")
    )
    assert document["history"]["gaps"] == 1436 and document["history"]["mode"] == "bursting"
    bursting = next(mode for mode in document["modes"] if mode["mode"] == "bursting")
    assert bursting["items"]["storage"] == 24.00
    assert document["workload"]["reads"] == 12
    text = run("--file-system", file_system, "--days", "1", "--region", REGION)
    assert "1,436 of 1,440 minutes have no data; they count as idle" in text
    assert "8.0 MiB metered, 100.0 GiB stored" in text
    assert "credits at the end of the history: 1.0 TiB measured, 1.0 TiB simulated" in text


def test_options_add_to_a_history(client, at_moto, run, tmp_path):
    """`--hits` comes on top of what was counted, and a saved profile has both."""
    file_system = plant(client, "on top", 2)
    path = str(tmp_path / "plan.toml")
    line = ["--file-system", file_system, "--days", "1", "--region", REGION, "--hits", "1M/day"]
    first = json.loads(run(*line, "--save", path, "--json"))
    assert (first["workload"]["hits"], first["workload"]["reads"]) == (1e6, 6)
    again = json.loads(run("--file", path, "--json"))
    assert again["workload"] == first["workload"]
    assert again["modes"][0]["items"] == first["modes"][0]["items"]


def test_a_file_system_without_metrics_is_told(client, at_moto, run):
    file_system = new_file_system(client, "nothing yet")
    text = run("--file-system", file_system, "--days", "1", "--region", REGION, code=3)
    assert "CloudWatch has no metric of it in us-east-1" in text


def test_no_such_file_system_is_told(at_moto, run):
    text = run("--file-system", MISSING, "--region", REGION, code=3)
    assert "there is no such file system" in text


def test_no_credentials_is_told(run, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    text = run("--file-system", MISSING, "--region", REGION, code=3)
    assert "no AWS credentials" in text


def test_no_region_is_told(run, monkeypatch, tmp_path):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    assert "give --region" in run("--file-system", MISSING, code=3)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--file-system", "fs-1"),
        ("--file-system", MISSING, "--days", "0"),
        ("--file-system", MISSING, "--days", "16"),
        ("--days", "3"),
        ("--covering", "1h"),
    ],
)
def test_a_history_that_cannot_be_is_exit_code_2(run, arguments):
    run(*arguments, code=2)


def test_a_refusal_names_the_permission():
    """Without cloudwatch:GetMetricData the message says that it is needed."""
    from botocore.exceptions import ClientError

    class Refusing:
        def __getattr__(self, name):
            raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetMetricData")

    with pytest.raises(EfsStateError, match="cloudwatch:GetMetricData"):
        cloudwatch.read(MISSING, days=1, region=REGION, client=lambda _: Refusing())
