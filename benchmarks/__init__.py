"""What each operation costs, beside bare system calls and beside the peers: `python -m benchmarks --help`."""
