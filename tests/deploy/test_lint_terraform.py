"""The linter on Terraform: expressions, variables, modules, plans, and endings."""

from __future__ import annotations

import json
import os
import pathlib

import pytest
from tests.deploy.faults import T

from efsstate.deploy.linting.lint import check, read
from efsstate.errors import TemplateError

ROLE_POLICY = T[T.index('resource "aws_iam_role_policy"') :].split("\n}\n")[0] + "\n}\n"


def write(folder, **files):
    """Write files into a folder; `_` in a name stands for a dot, `__` for a slash."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def alarms(path, **options):
    """Return the codes of the errors and warnings."""
    return {each.code for each in check(str(path), **options).findings if each.severity != "note"}


def changed(*pairs):
    """Return the good Terraform file with each old text replaced."""
    text = T
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


def attached(policy, more=""):
    """Return the good file with its policy attached as a resource of its own."""
    return changed(
        (
            ROLE_POLICY,
            f'resource "aws_iam_policy" "mount" {{\n{policy}\n}}\n'
            'resource "aws_iam_role_policy_attachment" "mount" {\n'
            "  role       = aws_iam_role.function.name\n"
            "  policy_arn = aws_iam_policy.mount.arn\n}\n" + more,
        )
    )


ELSEWHERE = """resource "aws_iam_role_policy_attachment" "more" {
  role       = var.role
  policy_arn = aws_iam_policy.mount.arn
}
variable "role" {}
"""
DOCUMENT = """data "aws_iam_policy_document" "d" {
  count = 1
  dynamic "statement" {
    for_each = var.on
    content { actions = ["elasticfilesystem:ClientMount"] }
  }
}
variable "on" {}
"""
UNKNOWN_POLICIES = {
    "a file": attached('  policy = file("${path.module}/none.json")'),
    "a template": attached('  policy = templatefile("x.tpl", {})'),
    "a variable": attached("  policy = var.policy", 'variable "policy" {}\n'),
    "an attachment to an unknown role": changed(
        (ROLE_POLICY, 'resource "aws_iam_policy" "mount" {\n  policy = "{}"\n}\n' + ELSEWHERE)
    ),
    "a dynamic statement": attached("  policy = data.aws_iam_policy_document.d[0].json", DOCUMENT),
}


@pytest.mark.parametrize("name", UNKNOWN_POLICIES)
def test_an_unknown_policy_is_no_finding(name, tmp_path):
    """The document may allow the mount; only its text is out of view."""
    write(tmp_path, main_tf=UNKNOWN_POLICIES[name])
    assert alarms(tmp_path) == set()


def test_a_policy_in_a_file_beside_is_read(tmp_path):
    """A JSON file of the module's own folder is a part of the template."""
    write(tmp_path, main_tf=attached('  policy = file("${path.module}/mount.json")'))
    action = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]
    statement = {"Effect": "Allow", "Action": action, "Resource": "*"}
    (tmp_path / "mount.json").write_text(json.dumps({"Statement": [statement]}))
    assert alarms(tmp_path) == {"EFS023"}
    (tmp_path / "mount.json").write_text(json.dumps({"Statement": []}))
    assert alarms(tmp_path) == {"EFS022"}


def test_a_managed_policy_by_a_data_source(tmp_path):
    """`data "aws_iam_policy"` with a literal ARN or name leads to AWS's own policy."""
    for key, value in (
        ("arn", "arn:aws:iam::aws:policy/AmazonElasticFileSystemClientFullAccess"),
        ("name", "AmazonElasticFileSystemClientFullAccess"),
    ):
        text = attached("  policy = jsonencode({ Statement = [] })").replace(
            "aws_iam_policy.mount.arn", "data.aws_iam_policy.full.arn"
        )
        write(tmp_path, main_tf=f'{text}data "aws_iam_policy" "full" {{\n  {key} = "{value}"\n}}\n')
        assert alarms(tmp_path) == {"EFS021", "EFS023"}


def test_a_rule_with_two_ranges(tmp_path):
    """The function's subnets may be in any of the ranges of one rule."""
    inline = T[T.index("  ingress {") : T.index('resource "aws_efs_file_system"')]
    rule = """}
resource "aws_security_group_rule" "nfs" {
  type              = "ingress"
  security_group_id = aws_security_group.mount.id
  protocol          = "tcp"
  from_port         = 2049
  to_port           = 2049
  cidr_blocks       = [%s]
}

"""
    write(tmp_path, main_tf=changed((inline, rule % '"10.9.0.0/16", "10.0.0.0/16"')))
    assert alarms(tmp_path) == set()
    write(tmp_path, main_tf=changed((inline, rule % '"10.9.0.0/16", "10.8.0.0/16"')))
    assert alarms(tmp_path) == {"EFS001"}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("var.on ? 1 : 0", False),
        ("var.on ? 0 : 1", True),
        ("(var.on ? 1 : 0)", False),
        ("var.size == 2 ? 1 : 0", True),
        ("var.size > 2 ? 1 : 0", False),
        ("!var.on ? 1 : 0", True),
        ("var.on || var.size != 2 ? 1 : 0", False),
        ("local.made ? 1 : 0", False),
        ("length(var.names) > 0 ? 1 : 0", False),
        ("var.none == null ? 0 : 1", False),
        ("coalesce(var.none, var.size)", True),
    ],
)
def test_a_count_is_decided(expression, expected, tmp_path):
    """An access point without a directory is reported only if it is created."""
    text = f"""variable "on" {{ default = false }}
variable "size" {{ default = 2 }}
variable "names" {{ default = [] }}
variable "none" {{ default = null }}
locals {{ made = var.on && true }}
resource "aws_efs_access_point" "a" {{
  count          = {expression}
  file_system_id = "fs-0123456789abcdef0"
}}
"""
    write(tmp_path, main_tf=text)
    assert ("EFS025" in alarms(tmp_path)) is expected


def test_a_conditional_value_is_decided(tmp_path):
    """A timeout behind a conditional is judged by the branch that is taken."""
    for default, expected in (("true", {"EFS041"}), ("false", set())):
        prod = f'variable "prod" {{\n  default = {default}\n}}\n'
        text = changed(("timeout       = 60", "timeout       = var.prod ? 3 : 60"))
        write(tmp_path, main_tf=text + prod)
        assert alarms(tmp_path) == expected
    unknown = changed(("timeout       = 60", "timeout       = var.prod ? 3 : 60"))
    write(tmp_path, main_tf=unknown + 'variable "prod" {}\n')
    assert alarms(tmp_path) == set()


SLOW = changed(("timeout       = 60", "timeout       = var.timeout"))
TIMEOUT = 'variable "timeout" {\n  default = 3\n}\n'


def test_tfvars_are_read(tmp_path):
    """terraform.tfvars and *.auto.tfvars win over the defaults, the command line over all."""
    write(tmp_path, main_tf=SLOW + TIMEOUT)
    assert alarms(tmp_path) == {"EFS041"}
    write(tmp_path, terraform_tfvars="timeout = 60\n")
    assert alarms(tmp_path) == set()
    write(tmp_path, x_auto_tfvars="timeout = 2\n")
    assert alarms(tmp_path) == {"EFS041"}
    write(tmp_path, y_auto_tfvars_json='{"timeout": 90}')
    assert alarms(tmp_path) == set()
    assert alarms(tmp_path, parameters={"timeout": "4"}) == {"EFS041"}


def test_a_called_module_is_not_judged_by_its_defaults(tmp_path):
    """A folder that another calls gets its variables from there."""
    write(tmp_path, app__main_tf=SLOW + TIMEOUT)
    assert alarms(tmp_path / "app") == {"EFS041"}
    write(tmp_path, main_tf='module "app" {\n  source  = "./app"\n  timeout = 60\n}\n')
    assert alarms(tmp_path / "app") == set()
    assert alarms(tmp_path) == set()
    write(tmp_path, main_tf='module "app" {\n  source = "./app"\n}\n')
    assert alarms(tmp_path) == {"EFS041"}


def split_in_modules():
    """Return the good file as a module for the network and one for the function."""
    middle = T.index('resource "aws_iam_role" "function"')
    network, app = T[:middle], T[middle:]
    outputs = {
        "ap_arn": "aws_efs_access_point.app.arn",
        "fs_arn": "aws_efs_file_system.this.arn",
        "subnets": "[aws_subnet.a.id, aws_subnet.b.id]",
        "group": "aws_security_group.function.id",
        "targets": "[aws_efs_mount_target.a.id, aws_efs_mount_target.b.id]",
    }
    for name, value in outputs.items():
        network += f'output "{name}" {{\n  value = {value}\n}}\n'
        app += f'variable "{name}" {{}}\n'
    app = app.replace("aws_efs_access_point.app.arn", "var.ap_arn")
    app = app.replace("aws_efs_file_system.this.arn", "var.fs_arn")
    app = app.replace("[aws_subnet.a.id, aws_subnet.b.id]", "var.subnets")
    app = app.replace("[aws_security_group.function.id]", "[var.group]")
    app = app.replace("[aws_efs_mount_target.a, aws_efs_mount_target.b]", "[var.targets]")
    app = app.replace("aws_efs_file_system.this.id", "var.fs_arn")
    calls = 'module "net" {\n  source = "./net"\n}\nmodule "app" {\n  source = "./app"\n'
    calls += "".join(f"  {name} = module.net.{name}\n" for name in outputs) + "}\n"
    return calls, network, app


def test_local_modules_are_followed(tmp_path):
    """What stands in two modules is one stack, and a fault across them is found."""
    calls, network, app = split_in_modules()
    write(tmp_path, main_tf=calls, net__main_tf=network, app__main_tf=app)
    report = check(str(tmp_path))
    assert [each for each in report.findings if each.severity != "note"] == []
    assert (report.functions, report.unseen) == (1, [])
    (served,) = read(str(tmp_path)).served()
    assert len(served[2]) == 2
    start = network.index('resource "aws_efs_mount_target" "a"')
    bare = network[:start] + network[network.index('resource "aws_efs_access_point"') :]
    bare = bare.replace("[aws_efs_mount_target.a.id, aws_efs_mount_target.b.id]", "[]")
    write(tmp_path, net__main_tf=bare)
    assert alarms(tmp_path) == {"EFS006"}


def test_a_module_from_a_registry_is_out_of_view(tmp_path):
    """It may make the mount target, so nothing is said of that; it is named as not followed."""
    text = T + 'module "net" {\n  source = "terraform-aws-modules/vpc/aws"\n}\n'
    write(tmp_path, main_tf=text.replace('resource "aws_efs_mount_target"', 'resource "other"'))
    report = check(str(tmp_path))
    assert "EFS006" not in {each.code for each in report.findings}
    assert "module net (terraform-aws-modules/vpc/aws)" in report.unseen


def test_a_module_that_calls_itself_is_refused(tmp_path):
    """A circle of modules ends with one line."""
    write(tmp_path, main_tf='module "a" {\n  source = "../' + tmp_path.name + '"\n}\n')
    with pytest.raises(TemplateError, match="over 50 modules"):
        check(str(tmp_path))


def test_blanks_behind_a_heredoc(tmp_path):
    """Terraform takes blanks behind both marks of a heredoc."""
    policy = '  policy = <<EOF \n{"Statement": [{"Effect": "Allow", "Action": "s3:Get*",'
    policy += ' "Resource": "*"}]}\nEOF  '
    write(tmp_path, main_tf=attached(policy))
    assert alarms(tmp_path) == {"EFS011", "EFS022"}


def test_a_policy_in_a_heredoc_with_references(tmp_path):
    """The JSON is read, and each `${…}` in it leads where it points."""
    policy = """  policy = <<-EOF
    {"Statement": [{"Effect": "Allow", "Resource": "${aws_efs_file_system.this.arn}",
      "Action": ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"],
      "Condition": {"StringEquals":
        {"elasticfilesystem:AccessPointArn": "${aws_efs_access_point.app.arn}"}}}]}
  EOF
"""
    write(tmp_path, main_tf=attached(policy))
    assert alarms(tmp_path) == set()
    wrong = policy.replace("aws_efs_file_system.this", "aws_efs_access_point.app")
    write(tmp_path, main_tf=attached(wrong))
    assert alarms(tmp_path) == {"EFS020"}
    write(tmp_path, main_tf=attached(policy.replace("Client", "Describe")))
    assert alarms(tmp_path) == {"EFS022"}


def test_a_mount_target_without_groups(tmp_path):
    """It has the VPC's default group, which does not let another group in."""
    text = T.replace("  security_groups = [aws_security_group.mount.id]\n", "")
    write(tmp_path, main_tf=text)
    assert alarms(tmp_path) == {"EFS001"}
    default = 'resource "aws_default_security_group" "d" {\n  vpc_id = aws_vpc.main.id\n}\n'
    write(tmp_path, main_tf=text + default)
    assert alarms(tmp_path) == set()


@pytest.mark.parametrize("apart", [False, True])
def test_network_acls_of_terraform(apart, tmp_path):
    """Rules inside aws_network_acl and those of aws_network_acl_rule are read."""
    rule = (
        'resource "aws_network_acl_rule" "no" {\n  network_acl_id = aws_network_acl.x.id\n'
        '  rule_number = 5\n  egress = true\n  protocol = "tcp"\n  rule_action = "deny"\n'
        '  cidr_block = "10.0.0.0/16"\n  from_port = 2049\n  to_port = 2049\n}\n'
    )
    inside = (
        '  egress {\n    rule_no = 5\n    protocol = "tcp"\n    action = "deny"\n'
        '    cidr_block = "10.0.0.0/16"\n    from_port = 2049\n    to_port = 2049\n  }\n'
    )
    allow = (
        '  %s {\n    rule_no = 9\n    protocol = "-1"\n    action = "allow"\n'
        '    cidr_block = "0.0.0.0/0"\n    from_port = 0\n    to_port = 0\n  }\n'
    )
    subnet = (
        'resource "aws_subnet" "c" {\n  vpc_id = aws_vpc.main.id\n'
        '  cidr_block = "10.0.3.0/24"\n  availability_zone = "eu-west-1a"\n}\n'
    )
    acl = 'resource "aws_network_acl" "x" {\n  subnet_ids = [aws_subnet.c.id]\n'
    both = allow % "egress" + allow % "ingress"
    text = changed(("subnet_ids         = [aws_subnet.a.id,", "subnet_ids = [aws_subnet.c.id,"))
    open_acl = text + subnet + acl + both + "}\n"
    write(tmp_path, main_tf=open_acl)
    assert alarms(tmp_path) == set()
    closed = open_acl + rule if apart else text + subnet + acl + both + inside + "}\n"
    write(tmp_path, main_tf=closed)
    assert alarms(tmp_path) == {"EFS010"}


def test_two_transitions_in_one_block(tmp_path):
    """EFS takes one transition a policy."""
    two = (
        '    transition_to_ia = "AFTER_30_DAYS"\n'
        '    transition_to_primary_storage_class = "AFTER_1_ACCESS"\n'
        ""
    )
    write(tmp_path, main_tf=changed(('    transition_to_ia = "AFTER_30_DAYS"\n', two)))
    assert alarms(tmp_path) == {"EFS058"}


def test_instances_of_one_subnet_are_not_one_subnet(tmp_path):
    """Mount targets in aws_subnet.x[0] and [1] are in two subnets."""
    text = T.replace("aws_subnet.a.id", "aws_subnet.a[0].id").replace(
        "aws_subnet.b.id", "aws_subnet.a[1].id"
    )
    start = text.index('resource "aws_subnet" "b"')
    text = text[:start] + text[text.index('resource "aws_security_group" "function"') :]
    text = text.replace(
        'resource "aws_subnet" "a" {\n', 'resource "aws_subnet" "a" {\n  count = 2\n'
    )
    write(tmp_path, main_tf=text)
    assert alarms(tmp_path) == set()


@pytest.mark.parametrize("end", [".tofu", ".tofu.json", ".tf", ".tf.json"])
def test_endings(end, tmp_path):
    """OpenTofu's files are read as Terraform's, alone and in a folder."""
    bad = {"resource": {"aws_efs_file_system": {"fs": {"encrypted": False}}}}
    text = 'resource "aws_efs_file_system" "fs" {\n  encrypted = false\n}\n'
    path = tmp_path / f"main{end}"
    path.write_text(json.dumps(bad) if end.endswith("json") else text)
    assert alarms(path) == alarms(tmp_path) == {"EFS030"}


def test_a_tofu_file_replaces_the_tf_file_of_its_name(tmp_path):
    """OpenTofu reads main.tofu and not main.tf beside it."""
    write(tmp_path, main_tf='resource "aws_efs_file_system" "fs" {\n  encrypted = false\n}\n')
    write(tmp_path, main_tofu='resource "aws_efs_file_system" "fs" {\n  encrypted = true\n}\n')
    assert alarms(tmp_path) == set()


def test_the_cloud_control_provider(tmp_path):
    """awscc_* has CloudFormation's own properties, with other spelling."""
    text = """resource "awscc_efs_file_system" "fs" {
  encrypted       = true
  throughput_mode = "elastic"
}
resource "awscc_efs_access_point" "ap" {
  file_system_id = awscc_efs_file_system.fs.file_system_id
  posix_user     = { uid = "1001", gid = "1001" }
  root_directory = { path = "/" }
}
"""
    write(tmp_path, main_tf=text)
    assert alarms(tmp_path) == {"EFS025", "EFS029"}
    creation = '{ path = "/a", creation_info = { owner_uid = "1001", owner_gid = "1001", '
    good = text.replace('{ path = "/" }', creation + 'permissions = "0750" } }')
    write(tmp_path, main_tf=good)
    assert alarms(tmp_path) == set()


# ---- plans ----

PLAN = pathlib.Path(os.path.dirname(__file__), "corpus", "cases", "plan.json")


def plan(tmp_path, change=lambda tree: None):
    """Write the good plan, changed by a function, and return its path."""
    tree = json.loads(PLAN.read_text())
    change(tree)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(tree))
    return path


def resource(tree, address):
    """Return a planned resource of the plan."""
    root = tree["planned_values"]["root_module"]
    modules = [root, *root["child_modules"]]
    every = [each for module in modules for each in module["resources"]]
    return next(each for each in every if each["address"] == address)


def test_a_good_plan_gives_nothing(tmp_path):
    """The whole way is seen, through a module and a count."""
    report = check(str(plan(tmp_path)))
    assert [each for each in report.findings if each.severity != "note"] == []
    assert (report.functions, report.unseen) == (1, [])
    (served,) = read(str(plan(tmp_path))).served()
    assert len(served[2]) == 2


def test_faults_in_a_plan_are_found(tmp_path):
    """A known value is judged as it will be, and a reference is followed through the module."""

    def short(tree):
        resource(tree, "aws_lambda_function.app")["values"]["timeout"] = 3

    def closed(tree):
        rules = resource(tree, "module.net.aws_security_group.mount")["values"]["ingress"]
        rules[0].update(from_port=111, to_port=111)

    def one_zone(tree):
        root = tree["planned_values"]["root_module"]["child_modules"][0]["resources"]
        root.remove(resource(tree, "module.net.aws_efs_mount_target.this[1]"))

    assert alarms(plan(tmp_path, short)) == {"EFS041"}
    assert alarms(plan(tmp_path, closed)) == {"EFS001"}
    assert alarms(plan(tmp_path, one_zone)) == {"EFS004"}


def test_a_plan_is_known_whatever_the_order_of_its_keys_and_its_encoding(tmp_path):
    """`jq -S` puts the configuration first, and PowerShell's `>` writes UTF-16."""
    path = plan(tmp_path)
    text = json.dumps(json.loads(path.read_text()), sort_keys=True)
    assert text.index('"format_version"') > 2048
    for encoding in ("utf-8", "utf-16"):
        path.write_text(text, encoding=encoding)
        assert check(str(path)).functions == 1


def test_a_plan_that_ended_with_an_error_is_partial(tmp_path):
    report = check(str(plan(tmp_path, lambda tree: tree.update(errored=True))))
    assert report.unseen == ["the rest of a plan that ended with an error"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format_version": "9.0", "planned_values": {}}', "format 9.0 of a plan"),
        ('{"format_version": "1.2"}', "without planned values"),
        ('{"format_version": "1.2", "planned_values": {"root_module": {"resources": [3]}}}', "not"),
        ('{"format_version": "1.2", ', "not JSON"),
        ('{"format_version": "1.2", "n": ' + "9" * 5000 + "}", "not JSON"),
        ('{"@level":"info","type":"version"}\n{"@level":"info"}\n', "terraform show -json"),
    ],
)
def test_a_plan_of_another_shape_is_refused(text, message, tmp_path):
    """One line says why, whatever the file holds."""
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(TemplateError, match=message) as error:
        check(str(path))
    assert "\n" not in str(error.value)
