"""The templates through their users' tools: cfn-lint, the SAM translator, terraform, moto."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import hcl2
import pytest
from tests.deploy.run import run

from efsstate.deploy.template import FORMATS, render

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
VARIANTS = [
    (form, image, layer)
    for form, (image, layer) in itertools.product(
        FORMATS, [(False, None), (True, None), (False, "dist/layer.zip")]
    )
]


def write(folder, form, image, layer, **more):
    name = f"{form}{'-image' if image else ''}{'-layer' if layer else ''}"
    path = folder / (f"{name}.tf" if form == "terraform" else f"{name}.yaml")
    path.write_text(render(form, image=image, layer=layer, **more))
    return path


def test_no_mark_of_the_preprocessor_is_left():
    for form, image, layer in VARIANTS:
        text = render(form, image=image, layer=layer)
        assert not re.search(r"#[{}:]|@[A-Za-z]+@", text.replace("# ----", "")), form


def test_cfn_lint_finds_nothing(tmp_path):
    files = [str(write(tmp_path, *variant)) for variant in VARIANTS if variant[0] != "terraform"]
    files += [str(path) for path in EXAMPLES.glob("*/trigger.yaml")]
    done = subprocess.run(
        [sys.executable, "-c", "from cfnlint.runner.cli import main; main()", *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def types_of(resources):
    """Return the types of the resources that SAM names as the template does."""
    others = ("Janitor", "StateLayer")
    names = [name for name in resources if not name.startswith(others)]
    return {name: resources[name]["Type"] for name in names}


@pytest.mark.parametrize(("image", "layer"), [(False, None), (True, None), (False, "layer.zip")])
def test_the_sam_translator_takes_it(image, layer, monkeypatch):
    """It gives the resources of the CloudFormation variant, except the names of the janitor's."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    from samtranslator.translator.transform import transform
    from samtranslator.yaml_helper import yaml_parse

    template = yaml_parse(render("sam", image=image, layer=layer))
    if image:  # what `sam package` does with local paths
        for resource in template["Resources"].values():
            if resource["Type"] == "AWS::Serverless::Function":
                resource["Properties"]["ImageUri"] = (
                    "123456789012.dkr.ecr.eu-west-1.amazonaws.com/app:1"
                )
    else:
        template["Globals"]["Function"]["CodeUri"] = "s3://bucket/code.zip"
    if layer:
        template["Resources"]["StateLayer"]["Properties"]["ContentUri"] = "s3://bucket/layer.zip"

    class Policies:
        def load(self):
            return {}

    made = transform(template, {}, Policies())["Resources"]
    same = yaml_parse(render("cloudformation", image=image, layer=layer))["Resources"]
    assert types_of(made) == types_of(same)
    for name in ("Service", "Batch", "Janitor", "Ops", "Doctor", "Publisher"):
        assert (
            made[name]["Properties"]["FileSystemConfigs"]
            == same[name]["Properties"]["FileSystemConfigs"]
        )
        assert made[name]["Properties"]["VpcConfig"] == same[name]["Properties"]["VpcConfig"]
        assert set(made[name]["DependsOn"]) == set(same[name]["DependsOn"])


@pytest.mark.parametrize(("image", "layer"), [(False, None), (True, None), (False, "layer.zip")])
def test_terraform_reads_it_and_would_not_reformat_it(tmp_path, image, layer):
    path = write(tmp_path, "terraform", image, layer)
    with open(path, encoding="utf-8") as file:
        assert hcl2.load(file)["resource"]
    if shutil.which("terraform") is None:
        pytest.skip("no terraform here: only the HCL parser was asked")
    done = subprocess.run(
        ["terraform", "fmt", "-check", "-diff", path.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


PARTS = [
    "2049",
    "accesspointarn",
    "clientmount",
    "clientwrite",
    "0750",
    "after30days",
    "enabled",
    "burstcreditbalance",
    "percentiolimit",
    "permittedthroughput",
    "clientconnections",
    "securetransport",
    "elastic",
    "dashboard",
    "efsstate.janitor.handler",
    "efsstate.publisher.handler",
    "efsstate.ops.handler",
    "efsstate.deploy.diagnosis.doctor.handler",
    "generalpurpose",
]


def test_each_format_has_the_same_parts():
    """What the page promises is in all three."""
    for form in FORMATS:
        text = render(form).lower().replace("_", "")
        for part in PARTS:
            assert part in text, (form, part)
        allowed = [line for line in render(form).splitlines() if "ClientRootAccess" in line]
        assert len(allowed) == 2, "ClientRootAccess stands in the two denials alone"


def test_defaults_are_multi_zone_and_without_internet():
    from samtranslator.yaml_helper import yaml_parse

    template = yaml_parse(render("cloudformation"))
    assert template["Parameters"]["InternetAccess"]["Default"] == "no"
    assert template["Resources"]["NatGateway"]["Condition"] == "WithNat"
    zones = {
        str(template["Resources"][f"NewSubnet{letter}"]["Properties"]["AvailabilityZone"])
        for letter in "ABC"
    }
    assert len(zones) == 3


# moto 5.2 has no Fn::Cidr, no `!Condition` and no GetAtt for EFS: they are written out for it.
def for_moto(text):
    """Return a CloudFormation template without the functions that moto lacks."""
    text = re.sub(r"!Condition (\w+)", r"{Condition: \1}", text)
    select = r"!Select \[(\d), !Cidr \[!Ref VpcCidr, 4, 10\]\]"
    text = re.sub(select, lambda match: f"10.64.{int(match[1]) * 4}.0/22", text)
    arn = '!Sub "arn:aws:elasticfilesystem:${AWS::Region}:${AWS::AccountId}:'
    text = text.replace("!GetAtt AccessPoint.Arn", arn + 'access-point/${AccessPoint}"')
    return text.replace("!GetAtt FileSystem.Arn", arn + 'file-system/${FileSystem}"')


KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}


class Region:
    """A region of moto's, with the functions' code in a bucket."""

    def __init__(self, url, name):
        self.url, self.name = url, name
        self.bucket = f"code-{name}"
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as file:
            file.writestr("app.py", "def handler(event, context): pass\n")
        s3 = self.client("s3")
        with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou):
            where = {"LocationConstraint": name}
            s3.create_bucket(Bucket=self.bucket, CreateBucketConfiguration=where)
        s3.put_object(Bucket=self.bucket, Key="code.zip", Body=packed.getvalue())

    def client(self, service):
        import boto3

        return boto3.client(service, region_name=self.name, endpoint_url=self.url, **KEYS)

    def deploy(self, name, **parameters):
        """Create a stack and return its outputs."""
        given = {"CodeBucket": self.bucket, **parameters}
        cloudformation = self.client("cloudformation")
        cloudformation.create_stack(
            StackName=name,
            TemplateBody=for_moto(render("cloudformation")),
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[
                {"ParameterKey": key, "ParameterValue": value} for key, value in given.items()
            ],
        )
        (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
        assert stack["StackStatus"] == "CREATE_COMPLETE"
        return {row["OutputKey"]: row["OutputValue"] for row in stack["Outputs"]}


@pytest.fixture(scope="module")
def moto_url():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "zones"), [("us-west-1", "2"), ("eu-west-1", "3")])
def test_it_deploys_on_moto(moto_url, name, zones):
    """One of the regions has two zones; the defaults take two, and three on request."""
    region = Region(moto_url, name)
    outputs = region.deploy(f"s{zones}", **({} if zones == "2" else {"Zones": zones}))
    efs = region.client("efs")
    targets = efs.describe_mount_targets(FileSystemId=outputs["FileSystemId"])["MountTargets"]
    assert len(targets) == int(zones)
    assert {each["SubnetId"] for each in targets} == set(outputs["SubnetIds"].split(","))
    assert {"ServiceName", "BatchName", "JanitorName", "OpsName", "DoctorName"} <= set(outputs)
    assert "PublisherName" not in outputs
    groups = region.client("ec2").describe_security_groups(GroupIds=[outputs["DefaultGroupId"]])
    assert groups["SecurityGroups"][0]["GroupName"] == "default"


@pytest.mark.filterwarnings("ignore")
def test_a_second_stack_takes_up_the_file_system_of_the_first(moto_url):
    """With its file system, access point and mount targets, from the first one's outputs alone."""
    region = Region(moto_url, "eu-central-1")
    first = region.deploy("first")
    subnet_a, subnet_b = first["SubnetIds"].split(",")
    groups = region.client("ec2").describe_security_groups()["SecurityGroups"]
    (mount_group,) = [each for each in groups if each["Description"].startswith("Mount targets")]
    (point,) = region.client("efs").describe_access_points()["AccessPoints"]
    second = region.deploy(
        "second",
        VpcId=first["VpcId"],
        SubnetA=subnet_a,
        SubnetB=subnet_b,
        ExistingFileSystemId=first["FileSystemId"],
        ExistingAccessPointArn=point["AccessPointArn"],
        ExistingMountGroupId=mount_group["GroupId"],
        WithBatchFunction="no",
    )
    assert second["FileSystemId"] == first["FileSystemId"]
    assert second["AccessPointArn"] == point["AccessPointArn"]
    assert "BatchName" not in second
    assert len(region.client("efs").describe_file_systems()["FileSystems"]) == 1
    targets = region.client("efs").describe_mount_targets(FileSystemId=first["FileSystemId"])
    assert len(targets["MountTargets"]) == 2


LISTS = {"S3PrefixListId": "pl-63a5400a", "DynamoDbPrefixListId": "pl-02cd2c6b"}


def holds(template, value, parameters):
    """Decide a condition of a template, as CloudFormation does."""
    ((kind, operands),) = value.items()
    if kind == "Condition":
        return holds(template, template["Conditions"][operands], parameters)
    if kind == "Fn::Not":
        return not holds(template, operands[0], parameters)
    if kind == "Fn::And":
        return all(holds(template, each, parameters) for each in operands)
    assert kind == "Fn::Equals", kind
    left, right = (parameters[each["Ref"]] if isinstance(each, dict) else each for each in operands)
    return left == right


@pytest.mark.parametrize("form", ["sam", "cloudformation"])
@pytest.mark.parametrize(
    ("given", "targets"),
    [
        (LISTS, set(LISTS)),
        ({**LISTS, "InternetAccess": "yes"}, {"0.0.0.0/0"}),
        ({}, {"0.0.0.0/0"}),
    ],
)
def test_the_way_out_leads_to_the_prefix_lists(form, given, targets):
    """To every address only with InternetAccess, or where CloudFormation is not told the ids.

    moto leaves out a group's own rules for the way out, so the conditions are decided here.
    """
    from samtranslator.yaml_helper import yaml_parse

    template = yaml_parse(render(form))
    parameters = {key: each.get("Default") for key, each in template["Parameters"].items()}
    parameters.update(given)
    resources = template["Resources"]
    rules = [*resources["FunctionGroup"]["Properties"]["SecurityGroupEgress"]]
    if holds(template, {"Condition": resources["FunctionToDynamoDb"]["Condition"]}, parameters):
        rules.append(resources["FunctionToDynamoDb"]["Properties"])
    reached = []
    for rule in rules:
        assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 443, 443)
        for key in {"CidrIp", "DestinationPrefixListId"} & set(rule):
            value = rule[key]
            if "Fn::If" in value:
                condition, yes, no = value["Fn::If"]
                value = yes if holds(template, {"Condition": condition}, parameters) else no
            reached.append(value["Ref"] if isinstance(value, dict) else value)
    reached = {value for value in reached if value != "AWS::NoValue"}
    assert reached == targets


def test_terraforms_way_out_is_open_with_internet_access_alone():
    rules = {}
    for block in hcl2.loads(render("terraform"))["resource"]:
        for bodies in block.values():
            rules.update({name.strip('"'): body for name, body in bodies.items()})
    closed, opened = rules["function_to_endpoints"], rules["function_to_internet"]
    assert closed["for_each"].endswith("if !var.internet_access}}")
    assert "aws_ec2_managed_prefix_list" in closed["for_each"]
    assert opened["count"] == "${var.internet_access ? 1 : 0}"
    assert rules["closed"]["vpc_id"], "the default group, without a rule"
    assert not {"ingress", "egress"} & set(rules["closed"])


def test_the_duration_alarm_rings_at_nine_tenths_of_the_timeout():
    """CloudFormation multiplies nothing, so the alarm is on a percentage."""
    from samtranslator.yaml_helper import yaml_parse

    for form in ("sam", "cloudformation"):
        alarm = yaml_parse(render(form))["Resources"]["ServiceDurationAlarm"]["Properties"]
        expression = alarm["Metrics"][0]["Expression"]["Fn::Sub"]
        for timeout, longest, rings in [(60, 54_001, True), (60, 53_999, False), (1800, 1, False)]:
            text = expression.replace("${ServiceTimeout}", str(timeout))
            numerator, *divisors = text.replace("longest", str(longest)).split(" / ")
            percent = float(numerator)
            for divisor in divisors:
                percent /= float(divisor)
            assert (percent > alarm["Threshold"]) is rings


def metrics_of(widget):
    """Return the metrics of a dashboard's widget, and the identifiers of its expressions."""
    rows = widget["properties"]["metrics"]
    metrics = [row for row in rows if isinstance(row[0], str)]
    words = {
        word
        for row in rows
        if isinstance(row[0], dict)
        for word in re.findall(r"\b[a-z]+\b", row[0]["expression"])
    }
    return metrics, words


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batch", ["yes", "no"])
def test_the_dashboard_shows_the_librarys_metrics(moto_url, batch):
    """It is JSON, names metrics that exist, and its expressions name metrics of their widget."""
    from efsstate.metrics.collector import UNITS

    region = Region(moto_url, "eu-west-3")
    given = {"WithBatchFunction": batch, "MetricsNamespace": "Shop"}
    outputs = region.deploy(f"board-{batch}", **given)
    name = outputs["DashboardName"]
    board = region.client("cloudwatch").get_dashboard(DashboardName=name)["DashboardBody"]
    seen, functions = set(), set()
    for widget in json.loads(board)["widgets"]:
        metrics, words = metrics_of(widget)
        ids = {row[-1]["id"] for row in metrics if isinstance(row[-1], dict) and "id" in row[-1]}
        assert words == ids, widget
        for namespace, metric, _, function, *_ in metrics:
            if namespace == "Shop":
                seen.add(metric)
                functions.add(function)
    wanted = {"CacheHit", "CacheMiss", "CacheCompute", "CacheError"}
    assert seen == wanted | {"CheckpointClaimLost", "ModelLoadFailed"}
    assert seen <= set(UNITS)
    assert functions == {outputs[key] for key in ("ServiceName", "BatchName") if key in outputs}
    alarms = region.client("cloudwatch").describe_alarms()["MetricAlarms"]
    for alarm in alarms:
        if alarm.get("Namespace") == "Shop":
            assert alarm["MetricName"] in UNITS
            assert alarm["Dimensions"][0]["Name"] == "FunctionName"


def missing_alarms(form):
    """Return the alarms on what does not happen."""
    from samtranslator.yaml_helper import yaml_parse

    resources = yaml_parse(render(form))["Resources"]
    return {
        name: resource["Properties"]
        for name, resource in resources.items()
        if resource.get("Properties", {}).get("TreatMissingData") == "breaching"
    }


def test_alarms_see_a_mount_that_fails_before_the_handler(tmp_path, monkeypatch):
    """Such an invocation is in no metric, so silence is the alarm; the doctor takes the event."""
    from samtranslator.yaml_helper import yaml_parse

    from efsstate.deploy.diagnosis import doctor

    for form in ("sam", "cloudformation"):
        alarms = missing_alarms(form)
        assert set(alarms) == {"MountAlarm", "JanitorMissingAlarm"}
        for alarm in alarms.values():
            assert alarm["Metrics"][0]["Expression"] == "invocations - errors"
            assert alarm["ComparisonOperator"] == "LessThanThreshold"
        assert alarms["JanitorMissingAlarm"]["Metrics"][1]["MetricStat"]["Period"] == 86_400
    rule = yaml_parse(render("sam"))["Resources"]["MountCheckRule"]["Properties"]
    monkeypatch.setenv("EFSSTATE_ROOT", str(tmp_path))
    answer = doctor.handler(json.loads(rule["Targets"][0]["Input"]))
    assert answer["schema"] == "efsstate.doctor"
    assert "MiB/s" not in answer["findings"][-1]["evidence"], "it measures no throughput"
    text = render("terraform")
    assert 'treat_missing_data  = "breaching"' in text
    assert text.count('"invocations - errors"') == 1


def test_each_function_has_a_role_of_its_own():
    """Rights that are added to the service are not those of the janitor or of `ops`."""
    from samtranslator.yaml_helper import yaml_parse

    resources = yaml_parse(render("cloudformation"))["Resources"]
    functions = {
        name: resource["Properties"]
        for name, resource in resources.items()
        if resource["Type"] == "AWS::Lambda::Function"
    }
    roles = {str(properties["Role"]) for properties in functions.values()}
    assert len(roles) == len(functions) == 6
    for resource in resources.values():
        if resource["Type"] == "AWS::IAM::Role":
            actions = str(resource["Properties"]["Policies"])
            assert "logs:CreateLogGroup" not in actions
            assert "lambda:SourceFunctionArn" in actions


@pytest.mark.parametrize("form", ["sam", "cloudformation"])
def test_wrong_parameters_are_refused_with_a_word(form):
    """Each assertion and pattern says what is wrong."""
    from samtranslator.yaml_helper import yaml_parse

    template = yaml_parse(render(form))
    for rule in template["Rules"].values():
        for assertion in rule["Assertions"]:
            assert len(assertion["AssertDescription"]) > 30
    for name, parameter in template["Parameters"].items():
        if "AllowedPattern" in parameter:
            assert parameter["ConstraintDescription"].startswith(name)
            assert re.fullmatch(parameter["AllowedPattern"], parameter["Default"]), name
    pattern = template["Parameters"]["VpcCidr"]["AllowedPattern"]
    assert not re.fullmatch(pattern, "10.0.0.0/24")


def test_the_example_service_deploys_with_the_defaults():
    """Its handlers and its Dockerfile are where the defaults and the page look for them."""
    folder = os.path.join(os.path.dirname(__file__), "..", "..", "examples", "image_service")
    for handler in re.findall(r"Default: (\w+)\.handler", render("sam")):
        with open(f"{folder}/{handler}.py", encoding="utf-8") as file:
            defined = r"^(def handler\(event, context\)|handler = workers\.handler\()"
            assert re.search(defined, file.read(), re.MULTILINE)
    text = render("sam", image=True, code="examples/image_service")
    assert text.count('DockerContext: "examples/image_service"') == 6
    assert os.path.exists(f"{folder}/Dockerfile")
    for handler in set(re.findall(r"efsstate\.[\w.]+(?=\.handler)", text)):
        assert callable(__import__(handler, fromlist=["handler"]).handler)


def test_command_prints_writes_and_refuses(tmp_path):
    printed = run("template", "sam", "--code", "src")
    assert printed.code == 0
    assert printed.out == render("sam", code="src")
    assert 'CodeUri: "src"' in printed.out
    path = tmp_path / "main.tf"
    assert run("template", "terraform", "-o", path).code == 0
    assert path.read_text() == render("terraform")
    assert json.loads(run("template", "sam", json=True).out)["text"] == render("sam")
    refused = run("template", "sam", "--image", "--layer", "x.zip")
    assert (refused.code, "takes no layer" in refused.err) == (2, True)
    assert run("template", "pulumi").code == 2
    assert run("template", "sam", "-o", tmp_path / "none" / "x").code == 3


# Each is a choice that the page explains; none is about the file system's safety.
CHECKOV_SKIPPED = {
    "CKV_AWS_50": "X-Ray: costs per trace; turn it on where you trace",
    "CKV_AWS_111": "network interfaces on any resource: Lambda needs it; a Deny keeps code off",
    "CKV_AWS_115": "reserved concurrency: it takes from the account's pool",
    "CKV_AWS_116": "dead-letter queue: the batch and the janitor go on from their checkpoint",
    "CKV_AWS_158": "logs under a key of one's own",
    "CKV_AWS_173": "environment under a key of one's own: it holds no secret",
    "CKV_AWS_184": "file system under a key of one's own: it has the account's EFS key",
    "CKV_AWS_272": "code signing",
    "CKV_AWS_284": "X-Ray of the state machine: costs per trace, as for the functions",
    "CKV_AWS_285": "the state machine's log: its history is kept, and the functions log each round",
    "CKV_AWS_338": "a year of logs: 90 days are kept",
    "CKV_AWS_394": "zones pinned: the first three of those open to everyone are taken",
    "CKV2_AWS_11": "VPC flow logs: cost per GB; turn them on where you look for a blocked port",
}


@pytest.mark.heavy
@pytest.mark.parametrize("form", FORMATS)
def test_checkov_finds_nothing_else(tmp_path, form, checkov):
    write(tmp_path, form, False, None, workers=4, containers="batch:read")
    kind = "terraform" if form == "terraform" else "cloudformation"
    command = [checkov, "-d", str(tmp_path), "--framework", kind, "-o", "json"]
    done = subprocess.run(
        [*command, "--skip-check", ",".join(CHECKOV_SKIPPED)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(done.stdout)
    assert [check["check_id"] for check in found["results"]["failed_checks"]] == []
    assert found["summary"]["passed"] > 50


# ---- Terraform's attributes: without the provider, by its declarations for CDKTF ----


@pytest.fixture(scope="session")
def provider(tmp_path_factory, pytestconfig):
    """The declarations of the AWS provider, from npm (37 MB)."""
    given = os.environ.get("CDKTF_PROVIDER_AWS")
    if given:
        return given
    if "heavy" not in pytestconfig.option.markexpr or shutil.which("npm") is None:
        pytest.skip("runs with -m heavy, where npm is")
    folder = tmp_path_factory.mktemp("provider")
    subprocess.run(
        ["npm", "pack", "@cdktf/provider-aws", "--silent"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    (archive,) = folder.glob("*.tgz")
    subprocess.run(["tar", "xzf", archive, "-C", folder], check=True)
    return str(folder / "package")


def declared(text, name):
    """Return the attributes of an interface, and whether they may be left out."""
    found = re.search(rf"export interface {name}\b[^{{]*{{(.*?)\n}}", text, re.DOTALL)
    assert found, name
    return {
        re.sub(r"[A-Z]", lambda match: f"_{match[0].lower()}", word): bool(optional)
        for word, optional in re.findall(r"readonly (\w+)(\??):", found[1])
    }


def unfolded(body):
    """Return the blocks that `dynamic` blocks make, by name."""
    blocks = {}
    for dynamic in body.get("dynamic", ()):
        for name, inner in dynamic.items():
            if not name.startswith("__"):
                blocks[name.strip('"')] = inner["content"]
    return blocks


def disagreements(text, name, body):
    """Attributes that the provider does not know, and required ones that are missing."""
    known = declared(text, name)
    body = {**body, **unfolded(body)}
    given = {
        key
        for key in body
        if not key.startswith("__")
        and key not in ("count", "for_each", "depends_on", "lifecycle", "dynamic")
    }
    yield from (f"{name} has no {key}" for key in given - set(known))
    yield from (
        f"{name} needs {key}"
        for key, optional in known.items()
        if not optional and key not in given
    )
    for key in given & set(known):
        if isinstance(body[key], list) and body[key] and isinstance(body[key][0], dict):
            inner = name.removesuffix("Config") + "".join(
                part.capitalize() for part in key.split("_")
            )
            for one in body[key]:
                yield from disagreements(text, inner, one)


@pytest.mark.heavy
@pytest.mark.parametrize(("image", "layer"), [(False, None), (True, None), (False, "layer.zip")])
def test_terraforms_attributes_are_the_providers(provider, image, layer):
    more = {"workers": 4, "containers": "batch:read"}
    tree = hcl2.loads(render("terraform", image=image, layer=layer, **more))
    seen = 0
    for kind, prefix in (("resource", ""), ("data", "data-aws-")):
        for block in tree[kind]:
            for name, bodies in block.items():
                short = name.strip('"').removeprefix("aws_").replace("_", "-")
                with open(f"{provider}/lib/{prefix}{short}/index.d.ts", encoding="utf-8") as file:
                    text = file.read()
                title = "".join(part.capitalize() for part in f"{prefix}{short}".split("-"))
                for body in bodies.values():
                    found = list(disagreements(text, f"{title}Config", body))
                    assert found == [], (name, found)
                    seen += 1
    assert seen > 30
