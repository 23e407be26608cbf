"""What the image service's README has `aws` do, in place of the AWS command line.

S3 is moto's. The functions run in this process, with a folder in place of the mount. Each option is
looked up in the model of AWS's API, as the real command line does, so that a misspelt one fails.
"""

import json
import os
import pathlib
import re
import sys

import boto3
from botocore import xform_name
from botocore.session import Session
from tests.deploy.test_image_service import resources, transformed

GLOBAL = {"output", "query", "cli-read-timeout", "cli-binary-format"}
OUTPUTS = {name: f"ocr-{name}" for name in ("PublisherName", "WorkersArn", "OpsName")}
HANDLERS = {"ocr-PublisherName": "efsstate.publisher", "ocr-OpsName": "efsstate.ops"}
DEPLOYED = pathlib.Path("trigger-is-deployed")


def parse(service, operation, words):
    """Return the options as a dict, and the other words. Raise if the API has no such option."""
    model = Session().get_service_model({"s3api": "s3"}.get(service, service))
    name = {xform_name(each, "-"): each for each in model.operation_names}[operation]
    known = {xform_name(each, "-") for each in model.operation_model(name).input_shape.members}
    options, others = {}, []
    words = iter(words)
    for word in words:
        if word.startswith("--"):
            option = word.removeprefix("--")
            assert option in known | GLOBAL, f"aws {service} {operation} has no {word}"
            options[option] = next(words)
        else:
            others.append(word)
    return options, others


def handle(module, event):
    """Call a handler of the package; return its answer."""
    handler = __import__(module, fromlist=["handler"]).handler
    return handler(event, None)


def copy(words):
    """Copy files to S3; a picture that arrives goes to the publisher, once the trigger is there."""
    *flags, source, target = words
    bucket, _, key = target.removeprefix("s3://").partition("/")
    store = boto3.client("s3")
    for path in sorted(pathlib.Path(source).glob("*.onnx")) if flags else [pathlib.Path(source)]:
        name = key + path.name if flags else key
        store.put_object(Bucket=bucket, Key=name, Body=path.read_bytes())
        if DEPLOYED.exists() and name.startswith("pictures/"):
            event = {"detail": {"bucket": {"name": bucket}, "object": {"key": name}}}
            (target,) = resources(bucket)["Arrival"]["Targets"]
            handle("efsstate.publisher", transformed(event, target["InputTransformer"]))


def deploy(words):
    """Deploy the trigger: all of its parameters must be given."""
    template = pathlib.Path(words[words.index("--template-file") + 1]).read_text()
    given = {word.partition("=")[0] for word in words if "=" in word}
    needed = re.findall(r"^  (\w+):\n    Type: String\n(?!    Default)", template, re.MULTILINE)
    assert set(needed) == given and "CAPABILITY_IAM" in words
    DEPLOYED.touch()


def run_workers(options):
    """Do what the state machine does: call the batch until it is finished, and collect."""
    import batch

    text = options["input"].replace("/mnt/efs", os.environ["EFSSTATE_ROOT"])
    job = json.loads(text)
    while not batch.handler({"step": "work", "worker": 1, "input": job}, None)["finished"]:
        pass
    return batch.handler({"step": "collect", "worker": 0, "input": job}, None)


def main(service, operation, *words):
    if (service, operation) == ("s3", "cp"):
        return copy(words)
    if (service, operation) == ("cloudformation", "deploy"):
        return deploy(words)
    options, others = parse(service, operation, words)
    if operation == "describe-stacks":
        (name,) = re.findall(r"OutputKey=='(\w+)'", options["query"])
        return print(OUTPUTS[name])
    if operation == "invoke":
        answer = handle(HANDLERS[options["function-name"]], json.loads(options["payload"]))
        with open("answers.jsonl", "a") as file:
            file.write(json.dumps(answer) + "\n")
        return pathlib.Path(*others).write_text(json.dumps(answer))
    if operation == "put-bucket-notification-configuration":
        configuration = json.loads(options["notification-configuration"])
        client = boto3.client("s3")
        return client.put_bucket_notification_configuration(
            Bucket=options["bucket"], NotificationConfiguration=configuration
        )
    assert (operation, options["state-machine-arn"]) == ("start-execution", OUTPUTS["WorkersArn"])
    return print(json.dumps(run_workers(options)))


if __name__ == "__main__":
    main(*sys.argv[1:])
