"""The image service without its model: the batch's saves, and what starts its work."""

import importlib.util
import json
import pathlib
import re
import sys
import types

import boto3
import pytest
from moto.events.models import EventPattern

from efsstate import checkpoint, dataset, publisher
from efsstate.deploy.linting.lint import check

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "image_service"
TRIGGER = FOLDER / "trigger.yaml"
WORKERS = "arn:aws:states:us-east-1:123456789012:stateMachine:ocr-Workers"
PARAMETERS = {"PublisherName": "ocr-publisher", "WorkersArn": WORKERS}
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="only in the source tree")


@pytest.fixture
def batch(tmp_path, monkeypatch):
    """The module `batch`, for which an image's text is the image; `seen` are the images read."""
    app = types.ModuleType("app")
    seen = []

    def text_of(image):
        seen.append(image)
        return [[image.decode(), 1.0]]

    app.text_of = text_of
    monkeypatch.setitem(sys.modules, "app", app)
    monkeypatch.setenv("EFSSTATE_ROOT", str(tmp_path / "root"))
    spec = importlib.util.spec_from_file_location("image_batch", FOLDER / "batch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.seen = seen
    return module


def pictures(folder, numbers):
    folder.mkdir(exist_ok=True, parents=True)
    for number in numbers:
        (folder / f"{number:04}.png").write_bytes(b"picture %d" % number)
    return str(folder)


def test_the_batch_collects_all_texts(batch, tmp_path):
    job = {"job": "today", "folder": pictures(tmp_path / "p", range(20)), "shards": 3}
    assert batch.handler(job, None) == {"finished": True, "idle": False}
    answer = batch.handler({"step": "collect", "worker": 0, "input": job}, None)
    assert answer["result"] == {"dataset": "texts/today", "snapshot": "all", "texts": 20}
    wanted = {f"{number:04}.png": [[f"picture {number}", 1.0]] for number in range(20)}
    assert batch.read_texts(job) == wanted
    frozen = dataset("texts/today").at("all")
    assert len([json.loads(bytes(data)) for _, data in frozen.read()]) == 20


def test_a_save_of_the_batch_does_not_grow(batch, tmp_path):
    sizes = []
    for count in (2, 60):
        folder = pictures(tmp_path / f"p{count}", range(count))
        assert batch.handler({"job": f"j{count}", "folder": folder, "shards": 1}, None)["finished"]
        sizes.append(checkpoint(f"texts/j{count}").shards(1).shard(0).status()["bytes"])
    assert abs(sizes[1] - sizes[0]) < 16, sizes


def test_an_image_that_was_read_before_a_kill_has_one_text(batch, tmp_path, monkeypatch):
    """The kill comes after the text is added and before the position is saved."""
    folder = pictures(tmp_path / "p", range(5))
    job = {"job": "today", "folder": folder, "shards": 1}
    kills = []

    class Killed:
        def __init__(self, texts):
            self._texts, self.name = texts, texts.name

        def add(self, *arguments, **options):
            self._texts.add(*arguments, **options)
            if options["key"] == "0002.png" and not kills:
                kills.append(1)
                raise SystemExit

    texts_of = batch.texts_of
    monkeypatch.setattr(batch, "texts_of", lambda *arguments: Killed(texts_of(*arguments)))
    with pytest.raises(SystemExit):
        batch.handler(job, None)
    assert batch.handler(job, None)["finished"]
    assert batch.seen.count(b"picture 2") == 2 and len(texts_of(job).parts()) == 5


def test_an_image_that_comes_during_the_job_moves_no_other_one(batch, tmp_path, monkeypatch):
    folder = pictures(tmp_path / "p", range(10, 30))
    job = {"job": "today", "folder": folder, "shards": 4}
    add = type(batch.texts_of(job)).add
    stops = []

    def stop(*arguments, **options):
        if len(batch.seen) == 9 and not stops:
            stops.append(1)
            raise ConnectionError
        return add(*arguments, **options)

    monkeypatch.setattr(type(batch.texts_of(job)), "add", stop)
    with pytest.raises(ConnectionError):
        batch.handler(job, None)
    pictures(tmp_path / "p", range(10))  # all sort before those that are done
    assert batch.handler(job, None)["finished"]
    assert {f"{number:04}.png" for number in range(10, 30)} <= set(batch.read_texts(job))


# The trigger


ACCOUNT = {"AWS::Partition": "aws", "AWS::Region": "us-east-1", "AWS::AccountId": "123456789012"}


def resolved(part, values):
    """Return a part of the template with the values of its parameters."""
    if isinstance(part, list):
        return [resolved(each, values) for each in part]
    if not isinstance(part, dict):
        return part
    if "Ref" in part:
        return values[part["Ref"]]
    if "Fn::GetAtt" in part:
        return "arn:aws:iam::123456789012:role/" + ".".join(part["Fn::GetAtt"])
    if "Fn::Sub" in part:
        return re.sub(r"\$\{([\w:]+)\}", lambda match: values[match[1]], part["Fn::Sub"])
    return {key: resolved(each, values) for key, each in part.items()}


def resources(bucket="b"):
    """Return the properties of each resource of the trigger."""
    from samtranslator.yaml_helper import yaml_parse

    values = PARAMETERS | ACCOUNT | {"Bucket": bucket, "Night": "cron(0 2 * * ? *)"}
    template = yaml_parse(TRIGGER.read_text())
    assert set(template["Parameters"]) == set(values) - set(ACCOUNT)
    return resolved({k: v["Properties"] for k, v in template["Resources"].items()}, values)


def test_our_linter_has_no_finding_in_the_trigger():
    """And cfn-lint has none, in tests/deploy/test_template.py."""
    assert check(str(TRIGGER), {}, set()).findings == []


def test_the_sam_translator_takes_the_trigger(monkeypatch):
    from samtranslator.translator.transform import transform
    from samtranslator.yaml_helper import yaml_parse

    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")

    class Policies:
        def load(self):
            return {}

    template = yaml_parse(TRIGGER.read_text())
    translated = transform(template, PARAMETERS | {"Bucket": "b"}, Policies())
    assert set(translated["Resources"]) == set(template["Resources"])


def test_the_schedule_may_start_this_state_machine_and_no_more():
    role = resources()["NightlyRole"]
    assert set(role) == {"AssumeRolePolicyDocument", "Policies"}
    (policy,) = role["Policies"]
    allowed = {"Effect": "Allow", "Action": "states:StartExecution", "Resource": WORKERS}
    assert policy["PolicyDocument"]["Statement"] == [allowed]
    (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "scheduler.amazonaws.com"}
    assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}


def test_no_other_rule_may_invoke_the_publisher():
    permission = resources()["ArrivalPermission"]
    assert permission["Principal"] == "events.amazonaws.com"
    assert permission["FunctionName"] == "ocr-publisher"
    assert permission["SourceArn"].endswith("Arrival.Arn")


def test_the_schedules_input_is_a_job_of_the_batch(s3, batch, tmp_path):
    properties = resources()["Nightly"]
    boto3.client("scheduler").create_schedule(Name="nightly", **properties)  # its form is right
    target = properties["Target"]
    assert (target["Arn"], properties["ScheduleExpression"]) == (WORKERS, "cron(0 2 * * ? *)")
    night = "2026-11-29T02:00:00Z"
    job = json.loads(target["Input"].replace("<aws.scheduler.scheduled-time>", night))
    assert job["folder"] == "/mnt/efs/shared-data/pictures"
    job["folder"] = pictures(tmp_path / "p", range(3))
    assert batch.handler(job, None)["finished"]
    assert batch.collect(job)["dataset"] == "texts/2026-11-29T02-00-00Z"


@pytest.mark.parametrize(
    ("bucket", "key", "is_ours"),
    [
        (None, "pictures/a page.png", True),
        (None, "models/ocr/x.onnx", False),
        ("another", "pictures/a page.png", False),
    ],
)
def test_a_picture_that_arrives_is_copied_to_the_folder(s3, tmp_path, bucket, key, is_ours):
    """With the event that EventBridge makes of it, and the publisher that gets it."""
    events, rule = boto3.client("events"), resources(s3.bucket)["Arrival"]
    pattern = json.dumps(rule["EventPattern"])
    events.put_rule(Name="arrival", EventPattern=pattern)
    assert events.put_targets(Rule="arrival", Targets=rule["Targets"])["FailedEntryCount"] == 0
    event = {
        "id": "1",
        "account": "123456789012",
        "time": "2026-11-29T02:00:00Z",
        "region": "us-east-1",
        "resources": [],
        "source": "aws.s3",
        "detail-type": "Object Created",
        "detail": {"bucket": {"name": bucket or s3.bucket}, "object": {"key": key}},
    }
    assert EventPattern.load(pattern).matches_event(event) is is_ours
    (target,) = rule["Targets"]
    assert target["Arn"].endswith(":function:ocr-publisher")
    if is_ours:
        s3.put_object(Bucket=s3.bucket, Key=key, Body=b"pixels")
        assert publisher.handler(transformed(event, target["InputTransformer"]))["finished"]
        copied = tmp_path / "root" / "shared-data" / "pictures" / "a page.png"
        assert copied.read_bytes() == b"pixels"


def transformed(event, transformer):
    """Return the event that a target gets: each path's value in place of its name."""
    text = transformer["InputTemplate"]
    for name, path in transformer["InputPathsMap"].items():
        value = event
        for part in path.removeprefix("$.").split("."):
            value = value[part]
        text = text.replace(f"<{name}>", value)
    return json.loads(text)
