"""The doctor for an account: walks a function's way to its file system, link by link."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, NamedTuple

import boto3  # type: ignore[import-untyped]
import botocore.config  # type: ignore[import-untyped]
import botocore.exceptions  # type: ignore[import-untyped]

from efsstate.deploy.diagnosis.account_facts import judge, reason
from efsstate.deploy.diagnosis.account_network import read_acls, read_groups, read_subnets
from efsstate.deploy.diagnosis.account_policy import Decision, decide, read_boundary, read_role
from efsstate.deploy.diagnosis.account_reader import Reader
from efsstate.deploy.diagnosis.account_rules import LINKS, METRICS, NO_EFS, SKIPPED
from efsstate.deploy.diagnosis.account_storage import read_storage
from efsstate.deploy.diagnosis.lambda_errors import explain
from efsstate.deploy.findings import Finding, run, sort_key
from efsstate.deploy.linting.resource import Resource
from efsstate.deploy.linting.stack import Stack
from efsstate.deploy.rules import RULES as TABLE
from efsstate.errors import AccountError
from efsstate.mount.environment import variable

_CONFIG = botocore.config.Config(
    connect_timeout=5, read_timeout=20, retries={"mode": "standard", "max_attempts": 4}
)


class Result(NamedTuple):
    """The outcome of `examine`."""

    findings: list[Finding]
    way: dict[str, str]
    """Each link of the way with its state."""
    unseen: list[str]
    """The calls and parts that could not be looked at."""


def examine(
    function: str, region: str | None = None, client: Callable[[str], Any] | None = None
) -> Result:
    """Examine the way of a function (name or ARN) to its file system, as it is in the account.

    It only reads. Raise AccountError if the function itself cannot be read: no credentials, no
    permission, no such function. Anything else that may not be read is in the result's `unseen`.
    `client` makes the client of a service, by default boto3's.
    """
    if client is None:
        client = _clients(function, region)
    reader = Reader(client)
    try:
        decision = _walk(reader, function)
    except AccountError:
        raise
    except botocore.exceptions.NoCredentialsError as error:
        message = "no AWS credentials; log in, or set AWS_PROFILE"
        raise AccountError(f"{function}: {message}") from error
    except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
        raise AccountError(f"{function}: {reason(error)}") from error
    stack = Stack(reader.resources.values(), unseen=reader.unseen, form="account")
    rules = (rule for rule in TABLE.values() if rule.code not in SKIPPED)
    findings = [*run(rules, stack), *(TABLE[code].finding(hit) for code, hit in reader.hits)]
    findings = sorted(dict.fromkeys(findings), key=sort_key)
    return Result(findings, _way(reader, findings, decision), reader.unseen)


def _clients(function: str, region: str | None) -> Callable[[str], Any]:
    try:
        session = boto3.Session(region_name=region or variable("AWS_REGION"))
        if session.region_name is None:
            raise AccountError("no region; give --region, or set AWS_REGION")
    except botocore.exceptions.BotoCoreError as error:
        raise AccountError(f"{function}: {error}") from error
    return lambda service: session.client(service, config=_CONFIG)


def _walk(reader: Reader, name: str) -> Decision:
    """Read the function and everything that it leads to."""
    configuration = dict(reader.client("lambda").get_function_configuration(FunctionName=name))
    function = _add_function(reader, name, configuration)
    mounts = configuration.get("FileSystemConfigs") or []
    if not mounts:
        region = str(configuration.get("FunctionArn", "")).split(":")[3:4]
        cannot = "; Lambda cannot mount EFS in this region" if set(region) & NO_EFS else ""
        reader.report("EFS201", function.name, f"FileSystemConfigs is empty{cannot}")
        return Decision(None, None, "the function mounts nothing")
    paths = ", ".join(str(mount.get("LocalMountPath")) for mount in mounts)
    reader.seen["function"].append(paths)
    account = str(configuration.get("FunctionArn", "")).split(":")[4:5]
    targets = [
        target
        for mount in mounts
        for target in read_storage(reader, str(mount.get("Arn", "")), "".join(account))
    ]
    function.depends = {target["MountTargetId"] for target in targets}
    network = configuration.get("VpcConfig") or {}
    mine = list(network.get("SubnetIds") or [])
    theirs = [target["SubnetId"] for target in targets]
    read_subnets(reader, [*mine, *theirs])
    read_groups(reader, list(network.get("SecurityGroupIds") or []))
    read_acls(reader, [*mine, *theirs])
    role = str(configuration.get("Role", ""))
    read_role(reader, role)
    boundary = read_boundary(reader, role)
    stack = Stack(reader.resources.values(), form="account")
    decision = decide(reader, stack, function, boundary)
    systems = [each for each in reader.resources.values() if each.type == "AWS::EFS::FileSystem"]
    _read_metrics(reader, function.name, [each.name for each in systems])
    return decision


def _add_function(reader: Reader, name: str, configuration: dict[str, Any]) -> Resource:
    network = configuration.get("VpcConfig") or {}
    function = reader.add(
        configuration.get("FunctionName", name),
        "AWS::Lambda::Function",
        Timeout=str(configuration.get("Timeout", "")),
        Role=configuration.get("Role"),
        SnapStart=configuration.get("SnapStart") or {},
        Environment=configuration.get("Environment") or {},
        FileSystemConfigs=configuration.get("FileSystemConfigs") or [],
        VpcConfig=network if network.get("SubnetIds") else None,
        CapacityProviderConfig=configuration.get("CapacityProviderConfig"),
    )
    state = configuration.get("State", "there")
    reader.seen["function"].append(f"{function.name} is {state}")
    if state == "Inactive":
        reader.report("EFS213", function.name, "State is Inactive")
    for status in ("State", "LastUpdateStatus"):
        if configuration.get(status) == "Failed":
            code = str(configuration.get(f"{status}ReasonCode"))
            error = explain(code)
            more = f" (see efsstate doctor --error {error.name})" if error else ""
            why = configuration.get(f"{status}Reason", "")
            reader.report("EFS202", function.name, f"{status} Failed: {code}: {why}{more}")
    return function


def _read_metrics(reader: Reader, function: str, file_systems: list[str]) -> None:
    """Read the last hour's metrics, by the minute, and report the faults that they show."""
    now = dt.datetime.now(dt.UTC)
    queries, about = [], {}
    for number, (name, namespace, dimension, stat) in enumerate(METRICS):
        values = file_systems if dimension == "FileSystemId" else [function]
        for which, value in enumerate(values):
            identity = f"m{number}x{which}"
            about[identity] = (name, value)
            metric = {
                "Namespace": namespace,
                "MetricName": name,
                "Dimensions": [{"Name": dimension, "Value": value}],
            }
            query = {"Metric": metric, "Period": 60, "Stat": stat}
            queries.append({"Id": identity, "MetricStat": query})
    answer = reader.ask(
        "cloudwatch",
        "get_metric_data",
        MetricDataQueries=queries,
        StartTime=now - dt.timedelta(hours=1),
        EndTime=now,
    )
    if answer is None:
        return
    series: dict[str, dict[str, list[float]]] = {}
    for result in answer.get("MetricDataResults", []):
        if result.get("Id") in about and result.get("Values"):
            name, value = about[result["Id"]]
            series.setdefault(value, {})[name] = list(result["Values"])
    reader.seen["metrics"].append("the last hour" if series else "none in the last hour")
    for name, metrics in series.items():
        system = reader.resources.get(name)
        is_elastic = system is not None and system.get("ThroughputMode") == "elastic"
        reader.hits += list(judge(name, metrics, is_elastic=is_elastic))


def _way(reader: Reader, findings: list[Finding], decision: Decision) -> dict[str, str]:
    """Return the state of each link of the way."""
    way = {}
    for link in LINKS:
        errors = [each for each in findings if each.severity == "error"]
        broken = [each.code for each in errors if TABLE[each.code].link == link]
        seen = ", ".join(reader.seen[link])
        if broken:
            state = f"BROKEN ({', '.join(dict.fromkeys(broken))})"
        elif link == "policy":
            state = _policy_state(decision)
        elif seen and link in reader.partial:
            state = "partly looked at"
        else:
            state = "ok" if seen else "not looked at"
        way[link] = f"{state}: {seen}" if seen else state
    return way


def _policy_state(decision: Decision) -> str:
    if decision.mounts is None:
        return f"not evaluated ({decision.source})"
    if not decision.mounts:
        return f"BROKEN (no permission to mount, {decision.source})"
    if decision.writes is False:
        return f"read-only ({decision.source})"
    return f"ok ({decision.source})"
