"""The sweep: remove cache entries, saves and versions that are no longer wanted."""
