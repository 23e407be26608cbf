# One file of a module: the mount targets, the rules of the groups and the role stand in others.
resource "aws_efs_file_system" "this" {
  encrypted = true
}

resource "aws_security_group" "mount" {
  vpc_id = var.vpc_id
}

resource "aws_security_group" "function" {
  vpc_id = var.vpc_id
}

resource "aws_efs_mount_target" "one" {
  file_system_id  = aws_efs_file_system.this.id
  subnet_id       = var.subnet_ids[0]
  security_groups = [aws_security_group.mount.id]
}

resource "aws_efs_access_point" "this" {
  file_system_id = aws_efs_file_system.this.id
  posix_user {
    uid = local.uid
    gid = local.uid
  }
  root_directory {
    path = "/app"
    creation_info {
      owner_uid   = local.uid
      owner_gid   = local.uid
      permissions = "0750"
    }
  }
}

resource "aws_lambda_function" "this" {
  function_name = "app"
  role          = aws_iam_role.this.arn
  timeout       = 60
  vpc_config {
    subnet_ids         = var.subnet_ids
    security_group_ids = [aws_security_group.function.id]
  }
  file_system_config {
    arn              = aws_efs_access_point.this.arn
    local_mount_path = "/mnt/efs"
  }
  depends_on = [module.network, aws_efs_mount_target.one]
}
