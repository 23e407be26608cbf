"""The shared result cache."""
