"""The command `efsstate`."""
