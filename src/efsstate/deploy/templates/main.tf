# Functions that share state on an encrypted EFS file system with efsstate: network, storage, permissions, alarms and the
# scheduled clean-up. Made by `efsstate template`; docs/deploy.md explains each part.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80"
    }
  }
}

variable "name" {
  type        = string
  default     = "image-service"
  description = "The beginning of each name; two stacks in one region need two names."
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,39}$", var.name))
    error_message = "name begins with a letter and has up to 40 of a-z, 0-9 and -."
  }
}

variable "vpc_id" {
  type        = string
  default     = ""
  description = "An existing VPC. Empty makes a new one, without internet access."
}

variable "subnet_ids" {
  type        = list(string)
  default     = []
  description = "With vpc_id, its private subnets, each in a zone of its own."
  validation {
    condition     = length(var.subnet_ids) != 1
    error_message = "subnet_ids names at least two subnets, in two zones."
  }
}

variable "route_table_ids" {
  type        = list(string)
  default     = []
  description = "With vpc_id, the subnets' route tables, to give them the S3 and DynamoDB gateway endpoints. Empty where they have them."
}

variable "vpc_cidr" {
  type        = string
  default     = "10.64.0.0/20"
  description = "The range of a new VPC, /16 to /20; each subnet takes a quarter of it."
  validation {
    condition     = can(cidrsubnet(var.vpc_cidr, 2, 3)) && can(regex("/(1[6-9]|20)$", var.vpc_cidr))
    error_message = "vpc_cidr is a range from /16 to /20: four subnets are cut out of it."
  }
}

variable "zones" {
  type        = number
  default     = 3
  description = "How many zones a new VPC spans at most, 2 or 3; some accounts have two in us-west-1."
  validation {
    condition     = contains([2, 3], var.zones)
    error_message = "zones is 2 or 3: fewer has no second mount target to turn to, more do not fit the range."
  }
}

variable "zone_names" {
  type        = list(string)
  default     = []
  description = "The zones of a new VPC, such as eu-west-1a. Empty takes the first of the region; name them if Lambda does not support one."
}

variable "internet_access" {
  type        = bool
  default     = false
  description = "For functions that call the internet; not needed for EFS, S3 or DynamoDB. In a new VPC, a NAT gateway (billed by the hour and by the GB)."
}

variable "architecture" {
  type    = string
  default = "arm64"
  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "architecture is arm64 or x86_64."
  }
}

variable "python_version" { #: zip
  type    = string #: zip
  default = "3.13" #: zip
} #: zip

variable "memory_size" {
  type        = number
  default     = 1769
  description = "MiB for the service and the batch; 1,769 is one whole vCPU."
}

variable "service_timeout" {
  type        = number
  default     = 60
  description = "Seconds; the first request of an environment also loads the model."
  validation {
    condition     = var.service_timeout >= 10 && var.service_timeout <= 1800
    error_message = "service_timeout is 10 to 1,800 seconds."
  }
}

variable "service_handler" {
  type    = string
  default = "app.handler"
}

variable "batch_handler" {
  type    = string
  default = "batch.handler"
}

#{ zip
variable "code_zip" {
  type        = string
  default     = "@code@"
  description = "The path of the functions' zip."
}
#}
#{ image
variable "image_uri" {
  type        = string
  description = "The container image of all functions, in ECR in this region."
}
#}

#{ layer
variable "layer_zip" {
  type        = string
  default     = "@layer@"
  description = "The path of the efsstate layer's zip."
}
#}
#{ nolayer
variable "layer_arns" {
  type        = list(string)
  default     = []
  description = "The efsstate layer's version ARN. Empty where the code brings efsstate itself."
}
#}

variable "model_bucket" {
  type        = string
  default     = ""
  description = "The bucket the publisher may read. Empty leaves the publisher out."
}

variable "model_key_arn" {
  type        = string
  default     = ""
  description = "The KMS key of model_bucket, if its objects are encrypted with a key of yours."
}

variable "hub_secret_name" {
  type        = string
  default     = ""
  description = "The secret with the token of the Hugging Face hub that the publisher may read. In a new VPC the way to the hub and to Secrets Manager is internet_access."
}

variable "batch" {
  type        = bool
  default     = true
  description = "Whether the batch function is created."
}
#{ containers

variable "container_repository" {
  type        = string
  default     = "worker"
  description = "The ECR repository, in this account and region, of the image with the job and efsstate."
}

variable "container_tag" {
  type    = string
  default = "latest"
}

variable "container_max_vcpus" {
  type        = number
  default     = 32
  description = "How many workers run in Batch at once; each has one vCPU."
}
#}
#{ workers

variable "workers" {
  type        = number
  default     = @workers@
  description = "How many workers share the batch's job, each an invocation at a time. The state machine keeps them going."
  validation {
    condition     = var.workers >= 1 && var.workers <= 1000
    error_message = "workers is 1 to 1,000."
  }
}
#}

variable "existing_file_system_id" {
  type        = string
  default     = ""
  description = "A file system to use, such as the one that a deleted stack left. Empty creates one. Its policy is left as it is."
  validation {
    condition     = can(regex("^(fs-[0-9a-f]+)?$", var.existing_file_system_id))
    error_message = "existing_file_system_id is an id such as fs-0123456789abcdef0, or empty."
  }
}

variable "existing_access_point_arn" {
  type        = string
  default     = ""
  description = "With existing_file_system_id, the access point to use. Empty creates one."
}

variable "existing_mount_group_id" {
  type        = string
  default     = ""
  description = "With existing_file_system_id, the security group of its mount targets, if it has one in each zone of the functions. Empty creates mount targets."
}

variable "access_point_path" {
  type        = string
  default     = "/image-service"
  description = "The directory of a new access point, one for each application."
  validation {
    condition     = can(regex("^(/[A-Za-z0-9_-][A-Za-z0-9._-]*){1,4}$", var.access_point_path))
    error_message = "access_point_path is a path of one to four levels, such as /image-service."
  }
}

variable "other_access_point_arns" {
  type        = list(string)
  default     = []
  description = "Access points of other applications on this file system, which its policy lets in."
}

variable "backup" {
  type        = bool
  default     = true
  description = "AWS Backup of a new file system (billed by the GB). A file system with nothing but caches needs none."
}

variable "transition_to_ia" {
  type        = string
  default     = "AFTER_30_DAYS"
  description = "When files that are not read move to Infrequent Access, which bills at least 128 KiB a file. Use \"never\" for many files under 10 KiB."
}

variable "endpoint_accounts" {
  type        = list(string)
  default     = []
  description = "Accounts whose buckets and tables the gateway endpoints lead to. Empty is this account alone."
}

variable "throughput_mode" {
  type    = string
  default = "elastic"
  validation {
    condition     = contains(["elastic", "bursting", "provisioned"], var.throughput_mode)
    error_message = "throughput_mode is elastic, bursting or provisioned."
  }
}

variable "provisioned_mibps" {
  type        = number
  default     = 64
  description = "MiB/s, with throughput_mode provisioned only."
}

variable "janitor_schedule" {
  type        = string
  default     = "rate(1 day)"
  description = "At least once a day, or the alarm on missing sweeps rings."
}

variable "mount_check" {
  type        = bool
  default     = true
  description = "Runs the doctor every 15 minutes, and an alarm if it cannot mount the file system."
}

variable "metrics_namespace" {
  type        = string
  default     = "efsstate"
  description = "The namespace that your functions give to efsstate.metrics.emf, for the dashboard and the alarms."
}

variable "alarm_topic_arns" {
  type        = list(string)
  default     = []
  description = "SNS topics to tell of alarms. Empty shows them in the console only."
}

data "aws_region" "here" {}
data "aws_partition" "here" {}
data "aws_caller_identity" "here" {}

data "aws_availability_zones" "here" {
  state = "available"
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

locals {
  new_vpc  = var.vpc_id == ""
  with_nat = local.new_vpc && var.internet_access
  vpc_id   = local.new_vpc ? aws_vpc.this[0].id : var.vpc_id
  # The counts must be known before anything is created, so they do not come from the subnets themselves.
  zone_names      = length(var.zone_names) > 0 ? var.zone_names : data.aws_availability_zones.here.names
  zone_count      = min(var.zones, length(local.zone_names))
  subnet_ids      = local.new_vpc ? aws_subnet.private[*].id : var.subnet_ids
  subnet_count    = local.new_vpc ? local.zone_count : length(var.subnet_ids)
  route_table_ids = local.new_vpc ? aws_route_table.private[*].id : var.route_table_ids
  with_endpoints  = local.new_vpc || length(var.route_table_ids) > 0

  new_file_system   = var.existing_file_system_id == ""
  new_access_point  = var.existing_access_point_arn == ""
  new_mount_targets = var.existing_mount_group_id == ""
  here              = "${data.aws_region.here.id}:${data.aws_caller_identity.here.account_id}"
  file_system_id    = local.new_file_system ? aws_efs_file_system.this[0].id : var.existing_file_system_id
  file_system_arn   = local.new_file_system ? aws_efs_file_system.this[0].arn : "arn:${data.aws_partition.here.partition}:elasticfilesystem:${local.here}:file-system/${var.existing_file_system_id}"
  access_point_arn  = local.new_access_point ? aws_efs_access_point.this[0].arn : var.existing_access_point_arn
  mount_group_id    = local.new_mount_targets ? aws_security_group.mount[0].id : var.existing_mount_group_id

  layers    = [aws_lambda_layer_version.efsstate.arn] #: layer
  layers    = var.layer_arns #: nolayer
  publisher = var.model_bucket == "" ? {} : { publisher = { handler = "efsstate.publisher.handler", timeout = 900, memory = 1769 } }
  batch     = var.batch ? { batch = { handler = var.batch_handler, timeout = 900, memory = var.memory_size } } : {}
  functions = merge({
    service = { handler = var.service_handler, timeout = var.service_timeout, memory = var.memory_size }
    janitor = { handler = "efsstate.janitor.handler", timeout = 900, memory = 512 }
    ops     = { handler = "efsstate.ops.handler", timeout = 300, memory = 512 }
    doctor  = { handler = "efsstate.deploy.diagnosis.doctor.handler", timeout = 120, memory = 1769 }
  }, local.batch, local.publisher)
}

# ---- Network: private subnets, no way to the internet unless asked for ----

resource "aws_vpc" "this" {
  count                = local.new_vpc ? 1 : 0
  cidr_block           = var.vpc_cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = { Name = var.name }

  lifecycle {
    precondition {
      condition     = local.zone_count >= 2
      error_message = "The region offers fewer than two zones: name two in zone_names."
    }
    precondition {
      condition     = length(var.subnet_ids) == 0
      error_message = "subnet_ids belongs to vpc_id, which is empty."
    }
  }
}

# The group that everything without a group of its own would be in: it allows nothing.
resource "aws_default_security_group" "closed" {
  count  = local.new_vpc ? 1 : 0
  vpc_id = aws_vpc.this[0].id
}

resource "aws_subnet" "private" {
  count             = local.new_vpc ? local.zone_count : 0
  vpc_id            = aws_vpc.this[0].id
  availability_zone = local.zone_names[count.index]
  cidr_block        = cidrsubnet(var.vpc_cidr, 2, count.index)
  tags              = { Name = "${var.name}-private-${count.index}" }
}

resource "aws_route_table" "private" {
  count  = local.new_vpc ? 1 : 0
  vpc_id = aws_vpc.this[0].id
  tags   = { Name = "${var.name}-private" }
}

resource "aws_route_table_association" "private" {
  count          = local.new_vpc ? local.zone_count : 0
  subnet_id      = aws_subnet.private[count.index].id
  route_table_id = aws_route_table.private[0].id
}

# Gateway endpoints cost nothing and let functions without NAT read S3 and DynamoDB; their policy keeps data from leaving to
# buckets and tables of other accounts.
data "aws_iam_policy_document" "endpoint" {
  for_each = toset(["s3", "dynamodb"])
  statement {
    actions   = ["${each.key}:*"]
    resources = ["*"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:ResourceAccount"
      values   = length(var.endpoint_accounts) > 0 ? var.endpoint_accounts : [data.aws_caller_identity.here.account_id]
    }
  }
}

resource "aws_vpc_endpoint" "gateway" {
  for_each          = local.with_endpoints ? toset(["s3", "dynamodb"]) : toset([])
  vpc_id            = local.vpc_id
  vpc_endpoint_type = "Gateway"
  service_name      = "com.amazonaws.${data.aws_region.here.id}.${each.key}"
  route_table_ids   = local.route_table_ids
  policy            = data.aws_iam_policy_document.endpoint[each.key].json
}

# ---- Only with internet_access: one NAT gateway, in a public subnet that nothing else uses ----

resource "aws_internet_gateway" "this" {
  count  = local.with_nat ? 1 : 0
  vpc_id = aws_vpc.this[0].id
}

resource "aws_subnet" "public" {
  count             = local.with_nat ? 1 : 0
  vpc_id            = aws_vpc.this[0].id
  availability_zone = local.zone_names[0]
  cidr_block        = cidrsubnet(var.vpc_cidr, 2, 3)
}

resource "aws_route_table" "public" {
  count  = local.with_nat ? 1 : 0
  vpc_id = aws_vpc.this[0].id
}

resource "aws_route" "public" {
  count                  = local.with_nat ? 1 : 0
  route_table_id         = aws_route_table.public[0].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this[0].id
}

resource "aws_route_table_association" "public" {
  count          = local.with_nat ? 1 : 0
  subnet_id      = aws_subnet.public[0].id
  route_table_id = aws_route_table.public[0].id
}

resource "aws_eip" "nat" {
  count      = local.with_nat ? 1 : 0
  domain     = "vpc"
  depends_on = [aws_internet_gateway.this]
}

resource "aws_nat_gateway" "this" {
  count         = local.with_nat ? 1 : 0
  allocation_id = aws_eip.nat[0].id
  subnet_id     = aws_subnet.public[0].id
}

resource "aws_route" "nat" {
  count                  = local.with_nat ? 1 : 0
  route_table_id         = aws_route_table.private[0].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this[0].id
}

# ---- Security groups: each names the other, on TCP 2049 and nothing else ----

resource "aws_security_group" "function" {
  name_prefix = "${var.name}-function-"
  description = "Functions that mount the file system"
  vpc_id      = local.vpc_id
}

resource "aws_security_group" "mount" {
  count       = local.new_mount_targets ? 1 : 0
  name_prefix = "${var.name}-mount-"
  description = "Mount targets of the file system"
  vpc_id      = local.vpc_id
}

resource "aws_vpc_security_group_egress_rule" "function_to_mount" {
  security_group_id            = aws_security_group.function.id
  description                  = "NFS to the mount targets"
  ip_protocol                  = "tcp"
  from_port                    = 2049
  to_port                      = 2049
  referenced_security_group_id = local.mount_group_id
}

data "aws_ec2_managed_prefix_list" "gateway" {
  for_each = toset(["s3", "dynamodb"])
  name     = "com.amazonaws.${data.aws_region.here.id}.${each.key}"
}

# Without internet access the functions may go to S3 and DynamoDB and nowhere else.
resource "aws_vpc_security_group_egress_rule" "function_to_endpoints" {
  for_each          = { for key, list in data.aws_ec2_managed_prefix_list.gateway : key => list.id if !var.internet_access }
  security_group_id = aws_security_group.function.id
  description       = "${each.key} through its gateway endpoint"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  prefix_list_id    = each.value
}

resource "aws_vpc_security_group_egress_rule" "function_to_internet" {
  count             = var.internet_access ? 1 : 0
  security_group_id = aws_security_group.function.id
  description       = "HTTPS"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_vpc_security_group_ingress_rule" "mount_from_function" {
  security_group_id            = local.mount_group_id
  description                  = "NFS from the functions"
  ip_protocol                  = "tcp"
  from_port                    = 2049
  to_port                      = 2049
  referenced_security_group_id = aws_security_group.function.id
}

# ---- Storage ----

resource "aws_efs_file_system" "this" {
  count                           = local.new_file_system ? 1 : 0
  encrypted                       = true
  performance_mode                = "generalPurpose"
  throughput_mode                 = var.throughput_mode
  provisioned_throughput_in_mibps = var.throughput_mode == "provisioned" ? var.provisioned_mibps : null
  tags                            = { Name = var.name }

  dynamic "lifecycle_policy" {
    for_each = { for kind, value in { ia = var.transition_to_ia, back = "AFTER_1_ACCESS" } : kind => value if var.transition_to_ia != "never" }
    content {
      transition_to_ia                    = lifecycle_policy.key == "ia" ? lifecycle_policy.value : null
      transition_to_primary_storage_class = lifecycle_policy.key == "back" ? lifecycle_policy.value : null
    }
  }

  # A destroy would delete the data: remove this line by hand first.
  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_efs_backup_policy" "this" {
  count          = local.new_file_system ? 1 : 0
  file_system_id = aws_efs_file_system.this[0].id
  backup_policy {
    status = var.backup ? "ENABLED" : "DISABLED"
  }
}

resource "aws_efs_mount_target" "this" {
  count           = local.new_mount_targets ? local.subnet_count : 0
  file_system_id  = local.file_system_id
  subnet_id       = local.subnet_ids[count.index]
  security_groups = [aws_security_group.mount[0].id]
}

# One access point for each application: its own user, its own directory, closed to the others.
resource "aws_efs_access_point" "this" {
  count          = local.new_access_point ? 1 : 0
  file_system_id = local.file_system_id
  posix_user {
    uid = 1001
    gid = 1001
  }
  root_directory {
    path = var.access_point_path
    creation_info {
      owner_uid   = 1001
      owner_gid   = 1001
      permissions = "0750"
    }
  }
  tags = { Name = var.name }
}

# The roles' policies allow. This denies mounts without TLS, mounts through no or an unnamed access point, and root.
data "aws_iam_policy_document" "file_system" {
  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite", "elasticfilesystem:ClientRootAccess"]
    resources = [local.file_system_arn]
    principals {
      type        = "AWS"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
  statement {
    sid       = "AccessPointOnly"
    effect    = "Deny"
    actions   = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]
    resources = [local.file_system_arn]
    principals {
      type        = "AWS"
      identifiers = ["*"]
    }
    condition {
      test     = "StringNotEquals"
      variable = "elasticfilesystem:AccessPointArn"
      values   = concat([local.access_point_arn], var.other_access_point_arns)
    }
  }
  statement {
    sid       = "NobodyIsRoot"
    effect    = "Deny"
    actions   = ["elasticfilesystem:ClientRootAccess"]
    resources = [local.file_system_arn]
    principals {
      type        = "AWS"
      identifiers = ["*"]
    }
  }
}

resource "aws_efs_file_system_policy" "this" {
  count          = local.new_file_system ? 1 : 0
  file_system_id = local.file_system_id
  policy         = data.aws_iam_policy_document.file_system.json
}

# ---- Permissions ----

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

# The resource is the file system; the access point is in the condition. Not the other way round.
data "aws_iam_policy_document" "mount" {
  statement {
    actions   = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]
    resources = [local.file_system_arn]
    condition {
      test     = "StringEquals"
      variable = "elasticfilesystem:AccessPointArn"
      values   = [local.access_point_arn]
    }
  }
}

data "aws_iam_policy_document" "read_models" {
  statement {
    actions   = ["s3:GetObject"]
    resources = ["arn:${data.aws_partition.here.partition}:s3:::${var.model_bucket}/*"]
  }
  statement {
    actions   = ["s3:ListBucket"]
    resources = ["arn:${data.aws_partition.here.partition}:s3:::${var.model_bucket}"]
  }
  dynamic "statement" {
    for_each = var.model_key_arn == "" ? [] : [var.model_key_arn]
    content {
      actions   = ["kms:Decrypt"]
      resources = [statement.value]
    }
  }
  dynamic "statement" {
    for_each = var.hub_secret_name == "" ? [] : [var.hub_secret_name]
    content {
      actions   = ["secretsmanager:GetSecretValue"]
      resources = ["arn:${data.aws_partition.here.partition}:secretsmanager:${local.here}:secret:${statement.value}-??????"]
    }
  }
}

# Interfaces are created by Lambda, as the role; the function's own code may not touch them.
data "aws_iam_policy_document" "run" {
  for_each = local.functions
  statement {
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.this[each.key].arn}:*"]
  }
  statement {
    actions   = local.interface_actions
    resources = ["*"]
  }
  statement {
    effect    = "Deny"
    actions   = local.interface_actions
    resources = ["*"]
    condition {
      test     = "ArnLike"
      variable = "lambda:SourceFunctionArn"
      values   = ["arn:${data.aws_partition.here.partition}:lambda:${local.here}:function:${var.name}-${each.key}"]
    }
  }
}

locals {
  interface_actions = [
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
  ]
}

resource "aws_iam_role" "function" {
  for_each           = local.functions
  name_prefix        = substr("${var.name}-${each.key}-", 0, 38)
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy" "run" {
  for_each = aws_iam_role.function
  name     = "run"
  role     = each.value.name
  policy   = data.aws_iam_policy_document.run[each.key].json
}

resource "aws_iam_role_policy" "mount" {
  for_each = aws_iam_role.function
  name     = "mount"
  role     = each.value.name
  policy   = data.aws_iam_policy_document.mount.json
}

resource "aws_iam_role_policy" "read_models" {
  count  = var.model_bucket == "" ? 0 : 1
  name   = "read-models"
  role   = aws_iam_role.function["publisher"].name
  policy = data.aws_iam_policy_document.read_models.json
}

# The permission to mount, for a function of another stack: attach it to that function's role.
resource "aws_iam_policy" "mount" {
  name_prefix = substr("${var.name}-mount-", 0, 102)
  description = "Mount and write through one access point"
  policy      = data.aws_iam_policy_document.mount.json
}

# ---- Functions: each with a role of its own; each waits for the mount targets, or its creation fails ----

resource "aws_cloudwatch_log_group" "this" {
  for_each          = local.functions
  name              = "/aws/lambda/${var.name}-${each.key}"
  retention_in_days = 90
}

#{ layer
resource "aws_lambda_layer_version" "efsstate" {
  layer_name               = "${var.name}-efsstate"
  filename                 = var.layer_zip
  source_code_hash         = filebase64sha256(var.layer_zip)
  compatible_architectures = [var.architecture]
}

#}
resource "aws_lambda_function" "this" {
  for_each      = local.functions
  function_name = "${var.name}-${each.key}"
  role          = aws_iam_role.function[each.key].arn
  architectures = [var.architecture]
  memory_size   = each.value.memory
  timeout       = each.value.timeout

  #{ zip
  runtime          = "python${var.python_version}"
  handler          = each.value.handler
  filename         = var.code_zip
  source_code_hash = filebase64sha256(var.code_zip)
  layers           = local.layers
  #}
  #{ image
  package_type = "Image"
  image_uri    = var.image_uri
  #}

  image_config { #: image
    command = [each.value.handler] #: image
  } #: image
  vpc_config {
    subnet_ids         = local.subnet_ids
    security_group_ids = [aws_security_group.function.id]
  }
  file_system_config {
    arn              = local.access_point_arn
    local_mount_path = "/mnt/efs"
  }
  environment {
    variables = { EFSSTATE_ROOT = "/mnt/efs" }
  }
  logging_config {
    log_format = "Text"
    log_group  = aws_cloudwatch_log_group.this[each.key].name
  }

  depends_on = [
    aws_efs_mount_target.this,
    aws_iam_role_policy.mount,
    aws_iam_role_policy.run,
    aws_vpc_security_group_egress_rule.function_to_mount,
    aws_vpc_security_group_ingress_rule.mount_from_function,
  ]
}

resource "aws_cloudwatch_event_rule" "janitor" {
  name_prefix         = substr("${var.name}-janitor-", 0, 38)
  description         = "Runs the clean-up"
  schedule_expression = var.janitor_schedule
}

resource "aws_cloudwatch_event_target" "janitor" {
  rule = aws_cloudwatch_event_rule.janitor.name
  arn  = aws_lambda_function.this["janitor"].arn
}

# A night that ran out of time is not repeated: the next one goes on.
resource "aws_lambda_function_event_invoke_config" "janitor" {
  function_name          = aws_lambda_function.this["janitor"].function_name
  maximum_retry_attempts = 0
}

resource "aws_lambda_permission" "janitor" {
  function_name = aws_lambda_function.this["janitor"].function_name
  action        = "lambda:InvokeFunction"
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.janitor.arn
}

@machines@
@containers@
# ---- Watch ----

locals {
  file_system_alarms = {
    BurstCreditBalance = { statistic = "Minimum", period = 300, periods = 3, operator = "LessThanThreshold", threshold = 1154487209165, why = "Under half of the first 2.1 TiB of burst credits are left (bursting mode only). When they end, throughput falls to 50 KiB/s per GiB in Standard storage, at least 1 MiB/s." }
    PercentIOLimit     = { statistic = "Maximum", period = 60, periods = 15, operator = "GreaterThanThreshold", threshold = 90, why = "The file system is close to its limit of operations a second. Fewer, larger files and fewer listings help." }
    ClientConnections  = { statistic = "Sum", period = 60, periods = 5, operator = "GreaterThanThreshold", threshold = 20000, why = "Over 20,000 of the 25,000 connections that a file system takes." }
  }
}

resource "aws_cloudwatch_metric_alarm" "file_system" {
  for_each            = local.file_system_alarms
  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.why
  namespace           = "AWS/EFS"
  metric_name         = each.key
  dimensions          = { FileSystemId = local.file_system_id }
  statistic           = each.value.statistic
  period              = each.value.period
  evaluation_periods  = each.value.periods
  comparison_operator = each.value.operator
  threshold           = each.value.threshold
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
}

resource "aws_cloudwatch_metric_alarm" "throughput" {
  alarm_name          = "${var.name}-PermittedThroughput"
  alarm_description   = "Over 80 % of the permitted throughput is in use. Reads count a third; in elastic mode the permitted throughput is that of writes."
  evaluation_periods  = 10
  comparison_operator = "GreaterThanThreshold"
  threshold           = 80
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns

  metric_query {
    id          = "used"
    label       = "percent of PermittedThroughput"
    expression  = "100 * (metered / PERIOD(metered)) / permitted"
    return_data = true
  }
  metric_query {
    id = "metered"
    metric {
      namespace   = "AWS/EFS"
      metric_name = "MeteredIOBytes"
      dimensions  = { FileSystemId = local.file_system_id }
      period      = 60
      stat        = "Sum"
    }
  }
  metric_query {
    id = "permitted"
    metric {
      namespace   = "AWS/EFS"
      metric_name = "PermittedThroughput"
      dimensions  = { FileSystemId = local.file_system_id }
      period      = 60
      stat        = "Minimum"
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "errors" {
  for_each            = { for key, function in aws_lambda_function.this : key => function if contains(["service", "batch", "janitor", "publisher"], key) }
  alarm_name          = "${var.name}-${each.key}-errors"
  alarm_description   = "Failed invocations of the ${each.key}. A failed mount may not count here; the mount alarm sees it."
  namespace           = "AWS/Lambda"
  metric_name         = "Errors"
  dimensions          = { FunctionName = each.value.function_name }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
}

locals {
  service_alarms = {
    Throttles = { statistic = "Sum", threshold = 0, why = "Requests to the service were throttled for want of concurrency." }
    Duration  = { statistic = "Maximum", threshold = 900 * var.service_timeout, why = "A request took over 90 % of the service's timeout." }
  }
}

resource "aws_cloudwatch_metric_alarm" "service" {
  for_each            = local.service_alarms
  alarm_name          = "${var.name}-service-${each.key}"
  alarm_description   = each.value.why
  namespace           = "AWS/Lambda"
  metric_name         = each.key
  dimensions          = { FunctionName = aws_lambda_function.this["service"].function_name }
  statistic           = each.value.statistic
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
}

# Of efsstate.metrics, where the function calls metrics.emf(); without it they have no data and stay silent.
locals {
  state_alarms = {
    CheckpointClaimLost = "A checkpoint's owner was fenced: it hung, was frozen, or its claim was broken. See docs/observability.md."
    ModelLoadFailed     = "A published version of a model does not load; the one before it is served."
  }
  state_functions = concat(["service"], var.batch ? ["batch"] : [])
}

resource "aws_cloudwatch_metric_alarm" "state" {
  for_each            = { for pair in setproduct(local.state_functions, keys(local.state_alarms)) : join("-", pair) => { function = pair[0], metric = pair[1] } }
  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = local.state_alarms[each.value.metric]
  namespace           = var.metrics_namespace
  metric_name         = each.value.metric
  dimensions          = { FunctionName = aws_lambda_function.this[each.value.function].function_name }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
}

# An invocation whose mount fails may count neither as one nor as an error: so the alarm looks for successes, and finds none.
resource "aws_cloudwatch_event_rule" "mount_check" {
  count               = var.mount_check ? 1 : 0
  name_prefix         = substr("${var.name}-mount-", 0, 38)
  description         = "Has the doctor mount the file system"
  schedule_expression = "rate(15 minutes)"
}

resource "aws_cloudwatch_event_target" "mount_check" {
  count = var.mount_check ? 1 : 0
  rule  = aws_cloudwatch_event_rule.mount_check[0].name
  arn   = aws_lambda_function.this["doctor"].arn
  input = jsonencode({ size = 0 })
}

resource "aws_lambda_permission" "mount_check" {
  count         = var.mount_check ? 1 : 0
  function_name = aws_lambda_function.this["doctor"].function_name
  action        = "lambda:InvokeFunction"
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.mount_check[0].arn
}

locals {
  missing_alarms = merge({
    janitor = { period = 86400, periods = 1, why = "No sweep has ended without an error for a day. A new stack is in this alarm until its first sweep; invoke the janitor to end it." }
    }, var.mount_check ? {
    doctor = { period = 900, periods = 2, why = "The doctor has not run for half an hour. Mounting fails before the handler, or the mount hangs; see docs/troubleshooting.md." }
  } : {})
}

resource "aws_cloudwatch_metric_alarm" "missing" {
  for_each            = local.missing_alarms
  alarm_name          = "${var.name}-${each.key}-missing"
  alarm_description   = each.value.why
  evaluation_periods  = each.value.periods
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  treat_missing_data  = "breaching"
  alarm_actions       = var.alarm_topic_arns

  metric_query {
    id          = "ended"
    label       = "invocations without an error"
    expression  = "invocations - errors"
    return_data = true
  }
  metric_query {
    id = "invocations"
    metric {
      namespace   = "AWS/Lambda"
      metric_name = "Invocations"
      dimensions  = { FunctionName = aws_lambda_function.this[each.key].function_name }
      period      = each.value.period
      stat        = "Sum"
    }
  }
  metric_query {
    id = "errors"
    metric {
      namespace   = "AWS/Lambda"
      metric_name = "Errors"
      dimensions  = { FunctionName = aws_lambda_function.this[each.key].function_name }
      period      = each.value.period
      stat        = "Sum"
    }
  }
}

# Dashboards belong to the account, not to the region.
resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = "${var.name}-${data.aws_region.here.id}"
  dashboard_body = jsonencode({
    widgets = [
      { type = "metric", x = 0, y = 0, width = 12, height = 6, properties = {
        region = data.aws_region.here.id, title = "Throughput in use, percent of permitted", period = 60, view = "timeSeries"
        metrics = [
          [{ id = "used", expression = "100 * (metered / PERIOD(metered)) / permitted", label = "percent" }],
          ["AWS/EFS", "MeteredIOBytes", "FileSystemId", local.file_system_id, { id = "metered", stat = "Sum", visible = false }],
          ["AWS/EFS", "PermittedThroughput", "FileSystemId", local.file_system_id, { id = "permitted", stat = "Minimum", visible = false }],
        ]
      } },
      { type = "metric", x = 12, y = 0, width = 12, height = 6, properties = {
        region  = data.aws_region.here.id, title = "Bytes by kind", period = 300, stat = "Sum", view = "timeSeries", stacked = true
        metrics = [for metric in ["DataReadIOBytes", "DataWriteIOBytes", "MetadataIOBytes"] : ["AWS/EFS", metric, "FileSystemId", local.file_system_id]]
      } },
      { type = "metric", x = 0, y = 6, width = 8, height = 6, properties = {
        region = data.aws_region.here.id, title = "Operations limit (percent) and connections", period = 60, view = "timeSeries"
        metrics = [
          ["AWS/EFS", "PercentIOLimit", "FileSystemId", local.file_system_id, { stat = "Maximum" }],
          ["AWS/EFS", "ClientConnections", "FileSystemId", local.file_system_id, { stat = "Sum", yAxis = "right" }],
        ]
      } },
      { type = "metric", x = 8, y = 6, width = 8, height = 6, properties = {
        region  = data.aws_region.here.id, title = "Stored bytes", period = 3600, stat = "Maximum", view = "timeSeries"
        metrics = [for class in ["Total", "IA"] : ["AWS/EFS", "StorageBytes", "FileSystemId", local.file_system_id, "StorageClass", class]]
      } },
      { type = "metric", x = 16, y = 6, width = 8, height = 6, properties = {
        region  = data.aws_region.here.id, title = "Function errors", period = 300, stat = "Sum", view = "timeSeries"
        metrics = [for key, function in aws_lambda_function.this : ["AWS/Lambda", "Errors", "FunctionName", function.function_name]]
      } },
      { type = "metric", x = 0, y = 12, width = 6, height = 6, properties = {
        region = data.aws_region.here.id, title = "Hit rate of the service's caches, percent", period = 300, stat = "Sum", view = "timeSeries"
        metrics = [
          [{ id = "rate", expression = "100 * FILL(hits, 0) / (FILL(hits, 0) + FILL(misses, 0))", label = "percent" }],
          [var.metrics_namespace, "CacheHit", "FunctionName", aws_lambda_function.this["service"].function_name, { id = "hits", visible = false }],
          [var.metrics_namespace, "CacheMiss", "FunctionName", aws_lambda_function.this["service"].function_name, { id = "misses", visible = false }],
        ]
      } },
      { type = "metric", x = 6, y = 12, width = 6, height = 6, properties = {
        region = data.aws_region.here.id, title = "Time saved by hits, seconds", period = 300, view = "timeSeries"
        metrics = [
          [{ id = "saved", expression = "FILL(hits, 0) * FILL(compute, REPEAT) / 1000", label = "seconds" }],
          [var.metrics_namespace, "CacheHit", "FunctionName", aws_lambda_function.this["service"].function_name, { id = "hits", stat = "Sum", visible = false }],
          [var.metrics_namespace, "CacheCompute", "FunctionName", aws_lambda_function.this["service"].function_name, { id = "compute", stat = "Average", visible = false }],
        ]
      } },
      { type = "metric", x = 12, y = 12, width = 6, height = 6, properties = {
        region  = data.aws_region.here.id, title = "Claims lost, models that did not load, cache errors", period = 300, stat = "Sum", view = "timeSeries"
        metrics = [for pair in setproduct(local.state_functions, ["CheckpointClaimLost", "ModelLoadFailed", "CacheError"]) : [var.metrics_namespace, pair[1], "FunctionName", aws_lambda_function.this[pair[0]].function_name]]
      } },
      { type = "metric", x = 18, y = 12, width = 6, height = 6, properties = {
        region  = data.aws_region.here.id, title = "Sweeps, and checks of the mount", period = 3600, stat = "Sum", view = "timeSeries"
        metrics = [for key in ["janitor", "doctor"] : ["AWS/Lambda", "Invocations", "FunctionName", aws_lambda_function.this[key].function_name]]
      } },
    ]
  })
}

output "vpc_id" {
  value = local.vpc_id
}

output "subnet_ids" {
  value = local.subnet_ids
}

output "function_group_id" {
  value       = aws_security_group.function.id
  description = "The security group that the mount targets let in; put another stack's function into it."
}

output "file_system_id" {
  value = local.file_system_id
}

output "access_point_arn" {
  value = local.access_point_arn
}

output "mount_policy_arn" {
  value       = aws_iam_policy.mount.arn
  description = "The permission to mount through the access point; attach it to another function's role."
}

output "function_names" {
  value = { for key, function in aws_lambda_function.this : key => function.function_name }
}

#{ containers
output "container_queue_arn" {
  value = aws_batch_job_queue.containers.arn
}

output "container_job_arn" {
  value       = aws_batch_job_definition.worker.arn
  description = "The Batch job definition of a worker; submit it as an array job."
}

output "container_task_arn" {
  value = aws_ecs_task_definition.worker.arn
}

#}
#{ workers
output "workers_arn" {
  value       = one(aws_sfn_state_machine.workers[*].arn)
  description = "The state machine that runs a job by several workers; start it with the job's input."
}

#}
output "dashboard_name" {
  value = aws_cloudwatch_dashboard.this.dashboard_name
}
