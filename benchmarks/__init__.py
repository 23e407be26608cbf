"""Measure each operation beside bare system calls and the peers: `python -m benchmarks --help`."""
