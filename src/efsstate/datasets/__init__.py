"""Shared training data: many writers, immutable parts, frozen snapshots."""
