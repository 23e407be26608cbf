"""Checkpoints, claims and shards."""
