"""Records: the state of a key, which only a compare-and-set changes."""
