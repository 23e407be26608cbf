"""Eviction of cache entries: policies, scans, limits, removals, and the trim after a put."""
