"""Read a file system's history from CloudWatch; it needs boto3 (the extra `aws`)."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator
from typing import Any

import boto3  # type: ignore[import-untyped]
import botocore.config  # type: ignore[import-untyped]
import botocore.exceptions  # type: ignore[import-untyped]

from efsstate.errors import EfsStateError
from efsstate.planning.history import CLASSES, TRAFFIC, History

MOST_DAYS = 15  # CloudWatch keeps values of a minute for so long (botocore 1.44.8, GetMetricData)
_SPACE = "AWS/EFS"
_CONFIG = botocore.config.Config(
    connect_timeout=5, read_timeout=30, retries={"mode": "standard", "max_attempts": 4}
)
_DAY = 86_400
Client = Callable[[str], Any]


def read(
    file_system: str,
    *,
    days: int = 14,
    region: str | None = None,
    client: Client | None = None,
    now: float | None = None,
) -> History:
    """Return the last `days` of the file system, until the last whole minute before `now`.

    `client` makes the client of a service, by default boto3's. Raise ValueError for days or an id
    that cannot be; EfsStateError without credentials, permission, or any metric.
    """
    if not 1 <= days <= MOST_DAYS:
        raise ValueError(
            f"--days {days}: from 1 to {MOST_DAYS}; CloudWatch keeps minutes no longer"
        )
    if not re.fullmatch(r"fs-[0-9a-f]{8,40}", file_system):
        raise ValueError(
            f"--file-system {file_system}: it is not an id such as fs-0123456789abcdef0"
        )
    try:
        if client is None:
            session = boto3.Session(region_name=region)
            region = session.region_name
            if region is None:
                raise EfsStateError("no region; give --region, or set AWS_REGION")
            client = lambda service: session.client(service, config=_CONFIG)  # noqa: E731
        end = int(now if now is not None else dt.datetime.now(dt.UTC).timestamp()) // 60 * 60
        history = History(file_system, region or "", end - days * _DAY, days * 1440)
        history.mode = _mode(client, file_system)
        for start in range(int(history.start), end, _DAY):
            _read_day(client("cloudwatch"), history, start)
        _read_storage(client("cloudwatch"), history, end)
    except botocore.exceptions.NoCredentialsError as error:
        raise EfsStateError(
            f"{file_system}: no AWS credentials; log in, or set AWS_PROFILE"
        ) from error
    except botocore.exceptions.ClientError as error:
        raise EfsStateError(f"{file_system}: {_reason(error)}") from error
    except botocore.exceptions.BotoCoreError as error:
        raise EfsStateError(f"{file_system}: {error}") from error
    if not history.sums and not history.stored:
        raise EfsStateError(
            f"{file_system}: CloudWatch has no metric of it in {region} in the last {days} days; is"
            " it in another region, or was it never mounted?"
        )
    return history


def _reason(error: Any) -> str:
    code = error.response["Error"].get("Code", "")
    if code in ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation"):
        return f"{error.operation_name} is not allowed; it needs cloudwatch:GetMetricData"
    return f"{error.operation_name}: {error.response['Error'].get('Message', code)}"


def _mode(client: Client, file_system: str) -> str:
    """Return the throughput mode, or "" if it may not be read; EfsStateError if it is gone."""
    try:
        answer = client("efs").describe_file_systems(FileSystemId=file_system)
    except botocore.exceptions.ClientError as error:
        if error.response["Error"].get("Code") == "FileSystemNotFound":
            raise EfsStateError(
                f"{file_system}: there is no such file system in this account and region"
            ) from error
        return ""
    return str(answer["FileSystems"][0].get("ThroughputMode", ""))


def _query(name: str, file_system: str, stat: str, period: int = 60, **more: str) -> dict[str, Any]:
    dimensions = [{"Name": "FileSystemId", "Value": file_system}]
    dimensions += [{"Name": key, "Value": value} for key, value in more.items()]
    metric = {"Namespace": _SPACE, "MetricName": name, "Dimensions": dimensions}
    identity = f"{name}{stat}{''.join(more.values())}"
    return {
        "Id": identity[:1].lower() + identity[1:],
        "MetricStat": {"Metric": metric, "Period": period, "Stat": stat},
        "ReturnData": True,
    }


def _values(
    client: Any, queries: list[dict[str, Any]], start: float, end: float
) -> Iterator[tuple[str, float, float]]:
    """Yield (the query's id, the time, the value) of each value; pages are followed."""
    pages = client.get_paginator("get_metric_data").paginate(
        MetricDataQueries=queries,
        StartTime=dt.datetime.fromtimestamp(start, dt.UTC),
        EndTime=dt.datetime.fromtimestamp(end, dt.UTC),
        ScanBy="TimestampAscending",
    )
    for page in pages:
        for row in page["MetricDataResults"]:
            for moment, value in zip(row["Timestamps"], row["Values"], strict=True):
                yield row["Id"], moment.timestamp(), float(value)


def _read_day(client: Any, history: History, start: int) -> None:
    """Read a day of minutes: 10 series of 1,440 values, a tenth of what a request may return."""
    wanted = {"MeteredIOBytes": "Sum", "BurstCreditBalance": "Minimum"}
    wanted |= dict.fromkeys(TRAFFIC, "Sum")
    queries, places = [], {}
    for name, stat in wanted.items():
        queries.append(_query(name, history.file_system, stat))
        places[queries[-1]["Id"]] = history.sums, name
    for name in TRAFFIC:
        queries.append(_query(name, history.file_system, "SampleCount"))
        places[queries[-1]["Id"]] = history.counts, name
    for identity, moment, value in _values(client, queries, start, start + _DAY):
        series, name = places[identity]
        minute = int(moment - history.start) // 60
        if 0 <= minute < history.minutes:
            series.setdefault(name, {})[minute] = value


def _read_storage(client: Any, history: History, end: float) -> None:
    """Read the newest bytes of each storage class; EFS reports them every 15 minutes."""
    queries = [
        _query("StorageBytes", history.file_system, "Average", 900, StorageClass=name)
        for name in CLASSES
    ]
    names = {query["Id"]: name for query, name in zip(queries, CLASSES, strict=True)}
    for identity, _, value in _values(client, queries, end - _DAY, end):
        history.stored[names[identity]] = value
