"""Lint SAM, CloudFormation and Terraform templates that mount EFS."""
