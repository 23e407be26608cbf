"""Rules for the file system's settings and what watches over it."""

from __future__ import annotations

from collections.abc import Iterator

from efsstate.deploy.findings import Hit, Rule
from efsstate.deploy.linting.stack import Stack
from efsstate.deploy.linting.values import Unknown, items, number, text

METRICS = frozenset(
    [
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
    ]
)


def _throughput(stack: Stack) -> Iterator[Hit]:
    for one in stack.of("AWS::EFS::FileSystem"):
        given, amount = one.get("ThroughputMode"), one.get("ProvisionedThroughputInMibps")
        if isinstance(given, Unknown):
            continue
        mode = (text(given) or "bursting").lower()
        line = one.at("ThroughputMode")
        if mode not in ("bursting", "elastic", "provisioned"):
            yield Hit(
                one.name,
                f"ThroughputMode {mode}: it is elastic, bursting or provisioned",
                line,
                file=one.file,
            )
        elif mode == "provisioned" and amount is None:
            yield Hit(
                one.name, "provisioned, without ProvisionedThroughputInMibps", line, file=one.file
            )
        elif (
            mode != "provisioned"
            and amount is not None
            and not isinstance(amount, Unknown)
            and number(amount) != 0
        ):
            evidence = f"ProvisionedThroughputInMibps {amount} with ThroughputMode {mode}"
            yield Hit(one.name, evidence, one.at("ProvisionedThroughputInMibps"), file=one.file)
        if text(one.get("PerformanceMode")) == "maxIO":
            if mode == "elastic":
                yield Hit(
                    one.name,
                    "PerformanceMode maxIO with ThroughputMode elastic",
                    one.at("PerformanceMode"),
                    file=one.file,
                )
            elif one.get("AvailabilityZoneName") is not None:
                yield Hit(
                    one.name,
                    "PerformanceMode maxIO on a One Zone file system",
                    one.at("PerformanceMode"),
                    file=one.file,
                )


def _bursting(stack: Stack) -> Iterator[Hit]:
    for one in stack.used():
        mode = one.get("ThroughputMode")
        if mode is None or text(mode) == "bursting":
            evidence = (
                "ThroughputMode bursting"
                if mode
                else "no ThroughputMode: the API's default is bursting"
            )
            yield Hit(one.name, evidence, one.at("ThroughputMode"), file=one.file)


def _no_lifecycle(stack: Stack) -> Iterator[Hit]:
    for one in stack.used():
        if not items(one.get("LifecyclePolicies")):
            yield Hit(one.name, "no LifecyclePolicies", one.line, file=one.file)


def _no_backup(stack: Stack) -> Iterator[Hit]:
    if stack.partial or stack.of("AWS::Backup::BackupSelection"):
        return
    for one in stack.used():
        apart = [p for p in stack.of("AWS::EFS::BackupPolicy") if stack.file_system(p) is one]
        status = one.get("BackupPolicy", "Status") or next(
            (p.get("BackupPolicy", "Status") for p in apart), None
        )
        if status is None or text(status) == "DISABLED":
            yield Hit(
                one.name,
                "BackupPolicy DISABLED" if status else "no BackupPolicy",
                one.at("BackupPolicy"),
                file=one.file,
            )


def _no_alarm(stack: Stack) -> Iterator[Hit]:
    watched = any("AWS/EFS" in str(one.properties) for one in stack.of("AWS::CloudWatch::Alarm"))
    if stack.partial or watched:
        return
    for one in stack.used():
        yield Hit(one.name, "no alarm on a metric of AWS/EFS", one.line, file=one.file)


def _no_such_metric(stack: Stack) -> Iterator[Hit]:
    for one in stack.of("AWS::CloudWatch::Alarm"):
        metrics = [one.properties] + [
            query.get("MetricStat", {}).get("Metric", {})
            for query in items(one.get("Metrics"))
            if isinstance(query, dict) and isinstance(query.get("MetricStat"), dict)
        ]
        for metric in metrics:
            if isinstance(metric, dict) and text(metric.get("Namespace")) == "AWS/EFS":
                name = text(metric.get("MetricName"))
                if name and name not in METRICS:
                    yield Hit(
                        one.name,
                        f"AWS/EFS has no metric {name}",
                        one.at("MetricName"),
                        file=one.file,
                    )


def _one_zone_storage(stack: Stack) -> Iterator[Hit]:
    for function, file_system, _ in stack.served():
        zone = text(file_system.get("AvailabilityZoneName"))
        if not zone:
            continue
        subnets = function.get("VpcConfig", "SubnetIds")
        others = sorted(
            {str(stack.zone(one)) for one in items(subnets) if stack.zone(one) not in (None, zone)}
        )
        if others:
            evidence = f"{file_system.name} is in {zone} alone, {function.name} also in {', '.join(others)}"
            yield Hit(
                file_system.name,
                evidence,
                file_system.at("AvailabilityZoneName"),
                file=file_system.file,
            )


def _goes_with_the_stack(stack: Stack) -> Iterator[Hit]:
    for one in stack.of("AWS::EFS::FileSystem"):
        if stack.form in ("sam", "cloudformation") and str(one.get("DeletionPolicy")) not in (
            "Retain",
            "RetainExceptOnCreate",
        ):
            evidence = f"DeletionPolicy is {one.get('DeletionPolicy') or 'not given, and the default is Delete'}"
            yield Hit(one.name, evidence, one.line, file=one.file)


RULES = (
    Rule(
        "EFS050", "error", "file system", "Throughput and performance settings contradict each other",
        "Provisioned needs an amount and the other modes take none; elastic does not go with maxIO, nor does a One Zone file system. EFS refuses these.",
        "Use ThroughputMode: elastic with PerformanceMode: generalPurpose, the recommendation of AWS.",
        _throughput,
    ),
    Rule(
        "EFS051", "note", "file system", "The file system is in bursting mode",
        "Bursting gives 50 KiB/s for each GiB stored once the credits of the start (2.1 TiB) are used up: a file system of 20 GiB then writes "
        "1 MiB/s and reads 3 MiB/s. That day comes without any change of yours.",
        "Set ThroughputMode: elastic, or set an alarm on BurstCreditBalance.",
        _bursting,
    ),
    Rule(
        "EFS052", "note", "file system", "No lifecycle policy",
        "Without one every byte is billed at the Standard price for ever. With one, files that nobody reads move to cheaper storage; none is "
        "deleted by it: that takes `efsstate.janitor`.",
        "Add LifecyclePolicies with TransitionToIA: AFTER_30_DAYS and TransitionToPrimaryStorageClass: AFTER_1_ACCESS.",
        _no_lifecycle,
    ),
    Rule(
        "EFS053", "note", "file system", "No backup",
        "A mistaken delete is final. A cache needs no backup; checkpoints, models and shared data may.",
        "Set BackupPolicy: {Status: ENABLED}, or add it to a plan of AWS Backup.",
        _no_backup,
    ),
    Rule(
        "EFS054", "note", "alarms", "No alarm on the file system",
        "Throttling shows as slow functions and timeouts, far from its cause.",
        "Set alarms on BurstCreditBalance (bursting), PercentIOLimit, MeteredIOBytes against PermittedThroughput, and ClientConnections.",
        _no_alarm,
    ),
    Rule(
        "EFS055", "warning", "alarms", "An alarm on a metric that EFS does not have",
        "An alarm on a metric that nobody writes stays in INSUFFICIENT_DATA and never fires. StoredThroughputCapacity is in several articles and does not exist.",
        "Use one of " + ", ".join(sorted(METRICS)) + ".",
        _no_such_metric,
    ),
    Rule(
        "EFS056", "warning", "file system", "A One Zone file system for a function in several zones",
        "A One Zone file system has one mount target. Environments in the other zones cannot mount it.",
        "Keep the function's subnets to that zone, or use a Regional file system.",
        _one_zone_storage,
    ),
    Rule(
        "EFS057", "note", "file system", "The file system goes when the stack goes",
        "Deleting the stack, or a change that replaces the file system, deletes every file.",
        "Set DeletionPolicy: Retain and UpdateReplacePolicy: Retain.",
        _goes_with_the_stack,
    ),
)  # fmt: skip
