"""Find out why a function cannot use its mount."""
