# expect: EFS024 EFS041
resource "aws_lambda_function" "this" {
  function_name = "app"
  role          = aws_iam_role.this.arn
  file_system_config {
    arn              = aws_efs_file_system.elsewhere.arn
    local_mount_path = "/mnt/efs"
  }
  vpc_config {
    subnet_ids         = [aws_subnet.a.id]
    security_group_ids = [aws_security_group.a.id]
  }
}
