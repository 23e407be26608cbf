"""A module that can't be imported."""

print("about to break")
raise RuntimeError("no configuration")
