# Functions that share state on an encrypted EFS file system with efsstate: network, storage, permissions, alarms and the
# scheduled clean-up. Made by `efsstate template`; what each part is for stands in docs/deploy.md.

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
  type    = string
  default = "image-service"
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
}

variable "route_table_ids" {
  type        = list(string)
  default     = []
  description = "With vpc_id, the subnets' route tables, to give them the S3 and DynamoDB gateway endpoints. Empty where they have them."
}

variable "vpc_cidr" {
  type        = string
  default     = "10.64.0.0/20"
  description = "The range of a new VPC; each subnet takes a quarter of it."
}

variable "zones" {
  type        = number
  default     = 3
  description = "How many zones a new VPC spans, 2 or 3."
  validation {
    condition     = contains([2, 3], var.zones)
    error_message = "zones is 2 or 3: fewer has no second mount target to turn to, more do not fit the range."
  }
}

variable "internet_access" {
  type        = bool
  default     = false
  description = "In a new VPC, a NAT gateway (billed by the hour and by the GB) for functions that call the internet. Not needed for EFS, S3 or DynamoDB."
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

variable "throughput_mode" {
  type    = string
  default = "elastic"
}

variable "provisioned_mibps" {
  type        = number
  default     = 64
  description = "MiB/s, with throughput_mode provisioned only."
}

variable "janitor_schedule" {
  type    = string
  default = "rate(1 day)"
}

variable "alarm_topic_arns" {
  type        = list(string)
  default     = []
  description = "SNS topics to tell of alarms. Empty shows them in the console only."
}

data "aws_region" "here" {}
data "aws_partition" "here" {}

data "aws_availability_zones" "here" {
  state = "available"
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

locals {
  new_vpc    = var.vpc_id == ""
  with_nat   = local.new_vpc && var.internet_access
  vpc_id     = local.new_vpc ? aws_vpc.this[0].id : var.vpc_id
  subnet_ids = local.new_vpc ? aws_subnet.private[*].id : var.subnet_ids
  # The count must be known before anything is made, so it does not come from the subnets themselves.
  subnet_count    = local.new_vpc ? var.zones : length(var.subnet_ids)
  route_table_ids = local.new_vpc ? aws_route_table.private[*].id : var.route_table_ids
  layers          = [aws_lambda_layer_version.efsstate.arn] #: layer
  layers          = var.layer_arns #: nolayer
  publisher       = var.model_bucket == "" ? {} : { publisher = { handler = "efsstate.publisher.handler", timeout = 900, memory = 1769 } }
  functions = merge({
    service = { handler = var.service_handler, timeout = var.service_timeout, memory = var.memory_size }
    batch   = { handler = var.batch_handler, timeout = 900, memory = var.memory_size }
    janitor = { handler = "efsstate.janitor.handler", timeout = 900, memory = 512 }
    ops     = { handler = "efsstate.ops.handler", timeout = 300, memory = 512 }
    doctor  = { handler = "efsstate.deploy.diagnosis.doctor.handler", timeout = 120, memory = 1769 }
  }, local.publisher)
}

# ---- Network: private subnets, no way to the internet unless asked for ----

resource "aws_vpc" "this" {
  count                = local.new_vpc ? 1 : 0
  cidr_block           = var.vpc_cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = { Name = var.name }
}

# The group that everything without a group of its own would be in: it allows nothing.
resource "aws_default_security_group" "closed" {
  count  = local.new_vpc ? 1 : 0
  vpc_id = aws_vpc.this[0].id
}

resource "aws_subnet" "private" {
  count             = local.new_vpc ? var.zones : 0
  vpc_id            = aws_vpc.this[0].id
  availability_zone = data.aws_availability_zones.here.names[count.index]
  cidr_block        = cidrsubnet(var.vpc_cidr, 2, count.index)
  tags              = { Name = "${var.name}-private-${count.index}" }
}

resource "aws_route_table" "private" {
  count  = local.new_vpc ? 1 : 0
  vpc_id = aws_vpc.this[0].id
  tags   = { Name = "${var.name}-private" }
}

resource "aws_route_table_association" "private" {
  count          = local.new_vpc ? var.zones : 0
  subnet_id      = aws_subnet.private[count.index].id
  route_table_id = aws_route_table.private[0].id
}

# Gateway endpoints cost nothing and let functions without NAT read S3 and DynamoDB.
resource "aws_vpc_endpoint" "gateway" {
  for_each          = local.new_vpc || length(var.route_table_ids) > 0 ? toset(["s3", "dynamodb"]) : toset([])
  vpc_id            = local.vpc_id
  vpc_endpoint_type = "Gateway"
  service_name      = "com.amazonaws.${data.aws_region.here.id}.${each.key}"
  route_table_ids   = local.route_table_ids
}

# ---- Only with internet_access: one NAT gateway, in a public subnet that nothing else uses ----

resource "aws_internet_gateway" "this" {
  count  = local.with_nat ? 1 : 0
  vpc_id = aws_vpc.this[0].id
}

resource "aws_subnet" "public" {
  count             = local.with_nat ? 1 : 0
  vpc_id            = aws_vpc.this[0].id
  availability_zone = data.aws_availability_zones.here.names[0]
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
  referenced_security_group_id = aws_security_group.mount.id
}

resource "aws_vpc_security_group_egress_rule" "function_to_endpoints" {
  security_group_id = aws_security_group.function.id
  description       = "S3 and DynamoDB through their gateway endpoints; without NAT nothing else is in reach"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_vpc_security_group_ingress_rule" "mount_from_function" {
  security_group_id            = aws_security_group.mount.id
  description                  = "NFS from the functions"
  ip_protocol                  = "tcp"
  from_port                    = 2049
  to_port                      = 2049
  referenced_security_group_id = aws_security_group.function.id
}

# ---- Storage ----

resource "aws_efs_file_system" "this" {
  encrypted                       = true
  performance_mode                = "generalPurpose"
  throughput_mode                 = var.throughput_mode
  provisioned_throughput_in_mibps = var.throughput_mode == "provisioned" ? var.provisioned_mibps : null
  tags                            = { Name = var.name }

  lifecycle_policy {
    transition_to_ia = "AFTER_30_DAYS"
  }
  lifecycle_policy {
    transition_to_primary_storage_class = "AFTER_1_ACCESS"
  }

  # A destroy would take the data with it: take this out by hand first.
  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_efs_backup_policy" "this" {
  file_system_id = aws_efs_file_system.this.id
  backup_policy {
    status = "ENABLED"
  }
}

resource "aws_efs_mount_target" "this" {
  count           = local.subnet_count
  file_system_id  = aws_efs_file_system.this.id
  subnet_id       = local.subnet_ids[count.index]
  security_groups = [aws_security_group.mount.id]
}

# One access point an application: its own user, its own directory, closed to the others. For a second application copy this
# with another number and path, name it in the file system's policy, and give its role the same policy with that access point.
resource "aws_efs_access_point" "this" {
  file_system_id = aws_efs_file_system.this.id
  posix_user {
    uid = 1001
    gid = 1001
  }
  root_directory {
    path = "/image-service"
    creation_info {
      owner_uid   = 1001
      owner_gid   = 1001
      permissions = "0750"
    }
  }
  tags = { Name = var.name }
}

# What is allowed stands in the roles' policies. This takes away: mounts without TLS, mounts by no or another access point, root.
data "aws_iam_policy_document" "file_system" {
  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite", "elasticfilesystem:ClientRootAccess"]
    resources = [aws_efs_file_system.this.arn]
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
    resources = [aws_efs_file_system.this.arn]
    principals {
      type        = "AWS"
      identifiers = ["*"]
    }
    condition {
      test     = "StringNotEquals"
      variable = "elasticfilesystem:AccessPointArn"
      values   = [aws_efs_access_point.this.arn]
    }
  }
  statement {
    sid       = "NobodyIsRoot"
    effect    = "Deny"
    actions   = ["elasticfilesystem:ClientRootAccess"]
    resources = [aws_efs_file_system.this.arn]
    principals {
      type        = "AWS"
      identifiers = ["*"]
    }
  }
}

resource "aws_efs_file_system_policy" "this" {
  file_system_id = aws_efs_file_system.this.id
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

# The resource is the file system; the access point stands in the condition. Not the other way round.
data "aws_iam_policy_document" "mount" {
  statement {
    actions   = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]
    resources = [aws_efs_file_system.this.arn]
    condition {
      test     = "StringEquals"
      variable = "elasticfilesystem:AccessPointArn"
      values   = [aws_efs_access_point.this.arn]
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
}

resource "aws_iam_role" "function" {
  for_each           = toset(var.model_bucket == "" ? ["function"] : ["function", "publisher"])
  name_prefix        = substr("${var.name}-${each.key}-", 0, 38)
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy_attachment" "vpc" {
  for_each   = aws_iam_role.function
  role       = each.value.name
  policy_arn = "arn:${data.aws_partition.here.partition}:iam::aws:policy/service-role/AWSLambdaVPCAccessExecutionRole"
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

# ---- Functions: each waits for the mount targets and the permission, or its first mount fails ----

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
  role          = aws_iam_role.function[each.key == "publisher" ? "publisher" : "function"].arn
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
    arn              = aws_efs_access_point.this.arn
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
    aws_iam_role_policy_attachment.vpc,
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

resource "aws_lambda_permission" "janitor" {
  function_name = aws_lambda_function.this["janitor"].function_name
  action        = "lambda:InvokeFunction"
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.janitor.arn
}

# ---- Watch ----

locals {
  file_system_alarms = {
    BurstCreditBalance = { statistic = "Minimum", period = 300, periods = 3, operator = "LessThanThreshold", threshold = 1154487209165, why = "Under half of the first 2.1 TiB of burst credits are left (bursting mode only). When they end, throughput falls to 50 KiB/s per GiB stored." }
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
  dimensions          = { FileSystemId = aws_efs_file_system.this.id }
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
  alarm_description   = "Over 80 % of the permitted throughput is in use."
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
      dimensions  = { FileSystemId = aws_efs_file_system.this.id }
      period      = 60
      stat        = "Sum"
    }
  }
  metric_query {
    id = "permitted"
    metric {
      namespace   = "AWS/EFS"
      metric_name = "PermittedThroughput"
      dimensions  = { FileSystemId = aws_efs_file_system.this.id }
      period      = 60
      stat        = "Minimum"
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "errors" {
  for_each            = toset(["service", "batch", "janitor"])
  alarm_name          = "${var.name}-${each.key}-errors"
  alarm_description   = "Failed invocations of the ${each.key}"
  namespace           = "AWS/Lambda"
  metric_name         = "Errors"
  dimensions          = { FunctionName = aws_lambda_function.this[each.key].function_name }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = [
      { type = "metric", x = 0, y = 0, width = 12, height = 6, properties = {
        region = data.aws_region.here.id, title = "Throughput in use, percent of permitted", period = 60, view = "timeSeries"
        metrics = [
          [{ id = "used", expression = "100 * (metered / PERIOD(metered)) / permitted", label = "percent" }],
          ["AWS/EFS", "MeteredIOBytes", "FileSystemId", aws_efs_file_system.this.id, { id = "metered", stat = "Sum", visible = false }],
          ["AWS/EFS", "PermittedThroughput", "FileSystemId", aws_efs_file_system.this.id, { id = "permitted", stat = "Minimum", visible = false }],
        ]
      } },
      { type = "metric", x = 12, y = 0, width = 12, height = 6, properties = {
        region  = data.aws_region.here.id, title = "Bytes by kind", period = 300, stat = "Sum", view = "timeSeries", stacked = true
        metrics = [for metric in ["DataReadIOBytes", "DataWriteIOBytes", "MetadataIOBytes"] : ["AWS/EFS", metric, "FileSystemId", aws_efs_file_system.this.id]]
      } },
      { type = "metric", x = 0, y = 6, width = 8, height = 6, properties = {
        region = data.aws_region.here.id, title = "Operations limit (percent) and connections", period = 60, view = "timeSeries"
        metrics = [
          ["AWS/EFS", "PercentIOLimit", "FileSystemId", aws_efs_file_system.this.id, { stat = "Maximum" }],
          ["AWS/EFS", "ClientConnections", "FileSystemId", aws_efs_file_system.this.id, { stat = "Sum", yAxis = "right" }],
        ]
      } },
      { type = "metric", x = 8, y = 6, width = 8, height = 6, properties = {
        region  = data.aws_region.here.id, title = "Stored bytes", period = 3600, stat = "Maximum", view = "timeSeries"
        metrics = [for class in ["Total", "IA"] : ["AWS/EFS", "StorageBytes", "FileSystemId", aws_efs_file_system.this.id, "StorageClass", class]]
      } },
      { type = "metric", x = 16, y = 6, width = 8, height = 6, properties = {
        region  = data.aws_region.here.id, title = "Function errors", period = 300, stat = "Sum", view = "timeSeries"
        metrics = [for key in ["service", "batch", "janitor"] : ["AWS/Lambda", "Errors", "FunctionName", aws_lambda_function.this[key].function_name]]
      } },
    ]
  })
}

output "file_system_id" {
  value = aws_efs_file_system.this.id
}

output "access_point_arn" {
  value = aws_efs_access_point.this.arn
}

output "function_names" {
  value = { for key, function in aws_lambda_function.this : key => function.function_name }
}
