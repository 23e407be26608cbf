"""Rules for the file system's settings, its cost, and its alarms."""

from __future__ import annotations

import re
from collections.abc import Iterator

from efsstate.deploy.aws_facts import number as number_of
from efsstate.deploy.aws_facts import quote
from efsstate.deploy.findings import Hit, Rule
from efsstate.deploy.linting.resource import Resource
from efsstate.deploy.linting.stack import Stack
from efsstate.deploy.linting.values import Unknown, items, number, text

METRICS = (
    "BurstCreditBalance",
    "ClientConnections",
    "DataReadIOBytes",
    "DataWriteIOBytes",
    "MetadataIOBytes",
    "MetadataReadIOBytes",
    "MetadataWriteIOBytes",
    "MeteredIOBytes",
    "PercentIOLimit",
    "PermittedThroughput",
    "StorageBytes",
    "TimeSinceLastSync",
    "TotalIOBytes",
)
MODES = ("bursting", "elastic", "provisioned")


def _unencrypted(stack: Stack) -> Iterator[Hit]:
    for file_system in stack.of("AWS::EFS::FileSystem"):
        value = file_system.get("Encrypted")
        if value is None:
            evidence = "Encrypted is not given, and the default is false"
            yield Hit.on(file_system, evidence, severity="note")
        elif str(text(value)).lower() == "false":
            yield Hit.on(file_system, "Encrypted is false", "Encrypted")


def _throughput(stack: Stack) -> Iterator[Hit]:
    for file_system in stack.of("AWS::EFS::FileSystem"):
        value = file_system.get("ThroughputMode")
        if not isinstance(value, Unknown):
            mode = text(value) or "bursting"
            yield from _contradictions(file_system, mode)
            if text(file_system.get("PerformanceMode")) == "maxIO":
                yield from _with_max_io(file_system, mode)


def _contradictions(file_system: Resource, mode: str) -> Iterator[Hit]:
    value = file_system.get("ProvisionedThroughputInMibps")
    amount = number(value)
    if mode not in MODES:
        hint = "; it is written in lower case" if mode.lower() in MODES else ""
        evidence = f"ThroughputMode {mode}: it is elastic, bursting or provisioned{hint}"
        yield Hit.on(file_system, evidence, "ThroughputMode")
    elif mode == "provisioned" and value is None:
        evidence = "provisioned, without ProvisionedThroughputInMibps"
        yield Hit.on(file_system, evidence, "ThroughputMode")
    elif mode == "provisioned" and amount is not None and amount < 1:
        evidence = f"ProvisionedThroughputInMibps {amount:g}: it is at least 1"
        yield Hit.on(file_system, evidence, "ProvisionedThroughputInMibps")
    elif mode != "provisioned" and amount:
        evidence = f"ProvisionedThroughputInMibps {amount:g} with ThroughputMode {mode}"
        yield Hit.on(file_system, evidence, "ProvisionedThroughputInMibps")


def _with_max_io(file_system: Resource, mode: str) -> Iterator[Hit]:
    if mode == "elastic":
        evidence = "PerformanceMode maxIO with ThroughputMode elastic"
        yield Hit.on(file_system, evidence, "PerformanceMode")
    elif text(file_system.get("AvailabilityZoneName")):
        evidence = "PerformanceMode maxIO on a One Zone file system"
        yield Hit.on(file_system, evidence, "PerformanceMode")


def _bursting(stack: Stack) -> Iterator[Hit]:
    for file_system in stack.used():
        mode = file_system.get("ThroughputMode")
        if mode is None or text(mode) == "bursting":
            default = "no ThroughputMode: the API's default is bursting"
            evidence = "ThroughputMode bursting" if mode else default
            yield Hit.on(file_system, evidence, "ThroughputMode")


def _no_lifecycle(stack: Stack) -> Iterator[Hit]:
    for file_system in stack.used():
        if not items(file_system.get("LifecyclePolicies")):
            yield Hit.on(file_system, "no LifecyclePolicies")


def _refused_lifecycle(stack: Stack) -> Iterator[Hit]:
    for file_system in stack.of("AWS::EFS::FileSystem"):
        mode = file_system.get("ThroughputMode")
        for policy in items(file_system.get("LifecyclePolicies")):
            transitions = sorted(policy) if isinstance(policy, dict) else []
            transitions = [
                name for name in transitions if name.startswith("Transition") and policy[name]
            ]
            if len(transitions) > 1:
                evidence = f"one policy with {' and '.join(transitions)}"
                yield Hit.on(file_system, evidence, "LifecyclePolicies")
            is_elastic = mode is not None and text(mode) in (None, "elastic")
            if "TransitionToArchive" in transitions and not is_elastic:
                evidence = f"TransitionToArchive with ThroughputMode {text(mode) or 'bursting'}"
                yield Hit.on(file_system, evidence, "LifecyclePolicies")
        infrequent, archive = (_days(file_system, name) for name in ("IA", "Archive"))
        if infrequent and archive and archive <= infrequent:
            evidence = f"to Archive after {archive} days, not later than to IA after {infrequent}"
            yield Hit.on(file_system, evidence, "LifecyclePolicies")


def _days(file_system: Resource, storage_class: str) -> int:
    """Return after how many days a file moves to a storage class; 0 if that is not known."""
    for policy in items(file_system.get("LifecyclePolicies")):
        value = policy.get(f"TransitionTo{storage_class}") if isinstance(policy, dict) else None
        days = re.fullmatch(r"AFTER_(\d{1,4})_DAYS?", text(value) or "")
        if days:
            return int(days[1])
    return 0


def _no_backup(stack: Stack) -> Iterator[Hit]:
    if stack.is_partial or stack.of("AWS::Backup::BackupSelection"):
        return
    for file_system in stack.used():
        apart = [
            policy.get("BackupPolicy", "Status")
            for policy in stack.of("AWS::EFS::BackupPolicy")
            if stack.file_system(policy) is file_system
        ]
        status = file_system.get("BackupPolicy", "Status") or next(iter(apart), None)
        if status is None or text(status) == "DISABLED":
            evidence = "BackupPolicy DISABLED" if status else "no BackupPolicy"
            yield Hit.on(file_system, evidence, "BackupPolicy")


def _no_alarm(stack: Stack) -> Iterator[Hit]:
    alarms = stack.of("AWS::CloudWatch::Alarm")
    if stack.is_partial or any("AWS/EFS" in str(alarm.properties) for alarm in alarms):
        return
    for file_system in stack.used():
        yield Hit.on(file_system, "no alarm on a metric of AWS/EFS")


def _no_such_metric(stack: Stack) -> Iterator[Hit]:
    for alarm in stack.of("AWS::CloudWatch::Alarm"):
        queries = [query for query in items(alarm.get("Metrics")) if isinstance(query, dict)]
        stats = [query["MetricStat"] for query in queries if "MetricStat" in query]
        metrics = [alarm.properties]
        metrics += [stat.get("Metric", {}) for stat in stats if isinstance(stat, dict)]
        for metric in metrics:
            if isinstance(metric, dict) and text(metric.get("Namespace")) == "AWS/EFS":
                name = text(metric.get("MetricName"))
                if name and name not in METRICS:
                    yield Hit.on(alarm, f"AWS/EFS has no metric {name}", "MetricName")


def _goes_with_the_stack(stack: Stack) -> Iterator[Hit]:
    if stack.form not in ("sam", "cloudformation"):
        return
    for file_system in stack.of("AWS::EFS::FileSystem"):
        policy = file_system.get("DeletionPolicy")
        is_kept = isinstance(policy, Unknown) or str(policy) in ("Retain", "RetainExceptOnCreate")
        if not is_kept:
            evidence = f"DeletionPolicy is {policy or 'not given, and the default is Delete'}"
            yield Hit.on(file_system, evidence)


def _costly(stack: Stack) -> Iterator[Hit]:
    for file_system in stack.of("AWS::EFS::FileSystem"):
        amount = number(file_system.get("ProvisionedThroughputInMibps"))
        if text(file_system.get("ThroughputMode")) == "provisioned" and amount:
            price = amount * number_of("provisioned")
            evidence = f"{amount:g} MiB/s provisioned: about ${price:,.0f} a month in us-east-1"
            yield Hit.on(file_system, evidence, "ProvisionedThroughputInMibps")
    for file_system in stack.used():
        is_refused = text(file_system.get("ThroughputMode")) == "elastic"  # EFS050 tells
        if text(file_system.get("PerformanceMode")) == "maxIO" and not is_refused:
            evidence = "PerformanceMode maxIO: each operation takes longer than in generalPurpose"
            yield Hit.on(file_system, evidence, "PerformanceMode")


RULES = (
    Rule(
        "EFS030",
        "warning",
        "file system",
        "The file system is not encrypted at rest",
        "Encryption can be chosen only when the file system is created.",
        "Set Encrypted: true.",
        _unencrypted,
    ),
    Rule(
        "EFS050",
        "error",
        "file system",
        "Throughput and performance settings contradict each other",
        "Provisioned throughput needs an amount, and the other modes take none. Elastic "
        "throughput excludes maxIO, and so does One Zone storage. EFS refuses these combinations.",
        "Use ThroughputMode: elastic with PerformanceMode: generalPurpose, as AWS recommends.",
        _throughput,
    ),
    Rule(
        "EFS051",
        "note",
        "file system",
        "The file system is in bursting mode",
        f"Bursting gives {quote('baseline')} for each GiB in Standard storage, at least 1 MiB/s, "
        f"once the credits of the start ({quote('credits-new')}) are used up; reads count a third. "
        "A file system of 20 GiB then writes 1 MiB/s and reads 3 MiB/s, all clients together. That "
        "day comes without any change of yours.",
        "Set ThroughputMode: elastic, or set an alarm on BurstCreditBalance. `efsstate plan` "
        "tells when the credits of your traffic end, and what each mode costs.",
        _bursting,
    ),
    Rule(
        "EFS052",
        "note",
        "file system",
        "No lifecycle policy",
        "Without one every byte is billed at the Standard price for ever. With one, files that "
        "are not read move to Infrequent Access, which bills at least "
        f"{quote('ia-minimum')} a file: a file "
        f"under {quote('ia-break-even')} costs more there than in Standard storage "
        f"({quote('ia-break-even-other')} without Elastic "
        "throughput). A lifecycle policy never deletes a file: `efsstate.janitor` does.",
        "For files above some 10 KiB add two entries to LifecyclePolicies, each with one "
        "transition: TransitionToIA: AFTER_30_DAYS, and TransitionToPrimaryStorageClass: "
        "AFTER_1_ACCESS. For a cache of small entries remove unused ones instead. `efsstate plan "
        "--cold-storage` computes both.",
        _no_lifecycle,
    ),
    Rule(
        "EFS053",
        "note",
        "file system",
        "No backup",
        "A mistaken deletion is final. A cache needs no backup; checkpoints, models and shared "
        "data may.",
        "Set BackupPolicy: {Status: ENABLED}, or add it to a plan of AWS Backup.",
        _no_backup,
    ),
    Rule(
        "EFS054",
        "note",
        "alarms",
        "No alarm on the file system",
        "Throttling shows as slow functions and timeouts, far from its cause.",
        "Set alarms on BurstCreditBalance (bursting), PercentIOLimit, MeteredIOBytes against "
        "PermittedThroughput, and ClientConnections.",
        _no_alarm,
    ),
    Rule(
        "EFS055",
        "warning",
        "alarms",
        "An alarm on a metric that EFS does not have",
        "An alarm on a metric that does not exist stays in INSUFFICIENT_DATA and never fires. "
        "StoredThroughputCapacity is in several articles and does not exist.",
        "Use one of " + ", ".join(METRICS) + ".",
        _no_such_metric,
    ),
    Rule(
        "EFS057",
        "note",
        "file system",
        "The file system is deleted with the stack",
        "Deleting the stack, or a change that replaces the file system, deletes every file.",
        "Set DeletionPolicy: RetainExceptOnCreate, which keeps it except if the first deployment "
        "fails, and UpdateReplacePolicy: Retain.",
        _goes_with_the_stack,
    ),
    Rule(
        "EFS058",
        "error",
        "file system",
        "The lifecycle policy is one that EFS refuses",
        "Each entry of LifecyclePolicies holds a single transition, Archive storage is only for "
        "Elastic throughput, and a file moves to Archive later than to Infrequent Access.",
        "Write each transition as an entry of its own; use ThroughputMode: elastic with "
        "TransitionToArchive, and more days than with TransitionToIA.",
        _refused_lifecycle,
    ),
    Rule(
        "EFS059",
        "note",
        "file system",
        "The throughput settings cost money or time",
        f"Provisioned throughput is billed whether it is used or not, {quote('provisioned')} for a "
        "MiB/s and month in us-east-1, and cannot be lowered or left for "
        f"{quote('provisioned-lock')} after a change. maxIO makes each operation slower, and AWS "
        "recommends against it.",
        "Use ThroughputMode: elastic and PerformanceMode: generalPurpose.",
        _costly,
    ),
)
