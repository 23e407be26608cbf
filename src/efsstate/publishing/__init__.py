"""Publish models from S3."""
