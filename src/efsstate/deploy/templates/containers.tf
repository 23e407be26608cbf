# ---- Containers: the same job in AWS Batch or ECS, through the same access point ----

locals {
  container_image = "${data.aws_caller_identity.here.account_id}.dkr.ecr.${data.aws_region.here.id}.${data.aws_partition.here.dns_suffix}/${var.container_repository}:${var.container_tag}"
  container_cpu   = var.architecture == "arm64" ? "ARM64" : "X86_64"
  container_log = {
    awslogs-group         = aws_cloudwatch_log_group.containers.name
    awslogs-region        = data.aws_region.here.id
    awslogs-stream-prefix = "worker"
  }
  access_point_id = element(split("/", local.access_point_arn), 1)
}

resource "aws_cloudwatch_log_group" "containers" {
  name              = "/efsstate/${var.name}-containers"
  retention_in_days = 90
}

data "aws_iam_policy_document" "assume_tasks" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.here.account_id]
    }
  }
}

data "aws_iam_policy_document" "start_containers" {
  statement {
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]
  }
  statement {
    actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    resources = ["arn:${data.aws_partition.here.partition}:ecr:${local.here}:repository/${var.container_repository}"]
  }
  statement {
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.containers.arn}:*"]
  }
}

# The role of the job itself: it mounts, and may do nothing else.
resource "aws_iam_role" "container" {
  name_prefix        = substr("${var.name}-container-", 0, 38)
  assume_role_policy = data.aws_iam_policy_document.assume_tasks.json
}

resource "aws_iam_role_policy" "container" {
  name   = "mount"
  role   = aws_iam_role.container.name
  policy = data.aws_iam_policy_document.mount.json
}

# The role with which the container is started: it pulls the image and writes the log.
resource "aws_iam_role" "start_container" {
  name_prefix        = substr("${var.name}-start-", 0, 38)
  assume_role_policy = data.aws_iam_policy_document.assume_tasks.json
}

resource "aws_iam_role_policy" "start_container" {
  name   = "start"
  role   = aws_iam_role.start_container.name
  policy = data.aws_iam_policy_document.start_containers.json
}

resource "aws_batch_compute_environment" "containers" {
  name_prefix = "${var.name}-"
  type        = "MANAGED"
  compute_resources {
    type               = "FARGATE_SPOT"
    max_vcpus          = var.container_max_vcpus
    security_group_ids = [aws_security_group.function.id]
    subnets            = local.subnet_ids
  }
  depends_on = [
    aws_efs_mount_target.this,
    aws_vpc_security_group_egress_rule.function_to_mount,
    aws_vpc_security_group_ingress_rule.mount_from_function,
  ]

  lifecycle {
    create_before_destroy = true
    precondition {
      condition     = var.vpc_id != "" || var.internet_access
      error_message = "Containers pull their image: in a new VPC they need internet_access = true."
    }
  }
}

resource "aws_batch_job_queue" "containers" {
  name     = "${var.name}-containers"
  state    = "ENABLED"
  priority = 1
  compute_environment_order {
    order               = 1
    compute_environment = aws_batch_compute_environment.containers.arn
  }
}

# Submit it as an array job: --array-properties size=32 is 32 workers. docs/scale.md has the exit codes.
resource "aws_batch_job_definition" "worker" {
  name                  = "${var.name}-worker"
  type                  = "container"
  platform_capabilities = ["FARGATE"]
  parameters            = { work = "@work@", input = "null", limit = "5h50m" }

  # Batch does not run a job again that its timeout has ended: the limit above comes first.
  timeout {
    attempt_duration_seconds = 21600
  }
  retry_strategy {
    attempts = 10
    evaluate_on_exit {
      action           = "RETRY"
      on_status_reason = "Host EC2*"
    }
    evaluate_on_exit {
      action           = "RETRY"
      on_status_reason = "Your Spot Task was interrupted*"
    }
    evaluate_on_exit {
      action       = "RETRY"
      on_exit_code = "75"
    }
    evaluate_on_exit {
      action       = "RETRY"
      on_exit_code = "137"
    }
    evaluate_on_exit {
      action    = "EXIT"
      on_reason = "*"
    }
  }

  container_properties = jsonencode({
    image       = local.container_image
    command     = ["python", "-m", "efsstate.worker", "Ref::work", "--input", "Ref::input", "--limit", "Ref::limit"]
    environment = [{ name = "EFSSTATE_ROOT", value = "/mnt/efs" }]
    resourceRequirements = [
      { type = "VCPU", value = "1" },
      { type = "MEMORY", value = "2048" },
    ]
    runtimePlatform  = { operatingSystemFamily = "LINUX", cpuArchitecture = local.container_cpu }
    jobRoleArn       = aws_iam_role.container.arn
    executionRoleArn = aws_iam_role.start_container.arn
    logConfiguration = { logDriver = "awslogs", options = local.container_log }
    mountPoints      = [{ sourceVolume = "efs", containerPath = "/mnt/efs" }]
    volumes = [{
      name = "efs"
      efsVolumeConfiguration = {
        fileSystemId        = local.file_system_id
        transitEncryption   = "ENABLED"
        authorizationConfig = { accessPointId = local.access_point_id, iam = "ENABLED" }
      }
    }]
  })
}

# The same for ECS itself, such as a service of workers on Spot.
resource "aws_ecs_task_definition" "worker" {
  family                   = "${var.name}-worker"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = "1024"
  memory                   = "2048"
  task_role_arn            = aws_iam_role.container.arn
  execution_role_arn       = aws_iam_role.start_container.arn

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = local.container_cpu
  }
  container_definitions = jsonencode([{
    name                   = "worker"
    image                  = local.container_image
    command                = ["python", "-m", "efsstate.worker", "@work@"]
    environment            = [{ name = "EFSSTATE_ROOT", value = "/mnt/efs" }]
    stopTimeout            = 120
    readonlyRootFilesystem = true
    logConfiguration       = { logDriver = "awslogs", options = local.container_log }
    mountPoints            = [{ sourceVolume = "efs", containerPath = "/mnt/efs" }]
  }])
  volume {
    name = "efs"
    efs_volume_configuration {
      file_system_id     = local.file_system_id
      transit_encryption = "ENABLED"
      authorization_config {
        access_point_id = local.access_point_id
        iam             = "ENABLED"
      }
    }
  }
}

