"""What goes when a cache is over its limits: policies, scans, limits and the trim after a put."""
