# ---- Workers: Step Functions calls the batch, again and again, until its checkpoint is finished ----

data "aws_iam_policy_document" "assume_states" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["states.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.here.account_id]
    }
  }
}

# A Distributed Map starts each of its items as an execution of the same state machine.
data "aws_iam_policy_document" "workers" {
  count = var.batch ? 1 : 0
  statement {
    actions   = ["lambda:InvokeFunction"]
    resources = [aws_lambda_function.this["batch"].arn]
  }
  statement {
    actions   = ["states:StartExecution"]
    resources = ["arn:${data.aws_partition.here.partition}:states:${local.here}:stateMachine:${var.name}-workers"]
  }
  statement {
    actions   = ["states:DescribeExecution", "states:StopExecution"]
    resources = ["arn:${data.aws_partition.here.partition}:states:${local.here}:execution:${var.name}-workers:*"]
  }
}

resource "aws_iam_role" "workers" {
  count              = var.batch ? 1 : 0
  name_prefix        = substr("${var.name}-workers-", 0, 38)
  assume_role_policy = data.aws_iam_policy_document.assume_states.json
}

resource "aws_iam_role_policy" "workers" {
  count  = var.batch ? 1 : 0
  name   = "run"
  role   = aws_iam_role.workers[0].name
  policy = data.aws_iam_policy_document.workers[0].json
}

# Its input is the job's: {"job": "2026-11-29"}. It ends when the job is finished, with what the batch collects.
resource "aws_sfn_state_machine" "workers" {
  count      = var.batch ? 1 : 0
  name       = "${var.name}-workers"
  type       = "STANDARD"
  role_arn   = aws_iam_role.workers[0].arn
  definition = <<-JSON
    @definition@
  JSON
  depends_on = [aws_iam_role_policy.workers]
}

resource "aws_cloudwatch_metric_alarm" "workers" {
  count               = var.batch ? 1 : 0
  alarm_name          = "${var.name}-workers-errors"
  alarm_description   = "A job of the workers failed. Start it again with the same input once the cause is repaired, and it goes on where it stood."
  namespace           = "AWS/States"
  metric_name         = "ExecutionsFailed"
  dimensions          = { StateMachineArn = aws_sfn_state_machine.workers[0].arn }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
}

