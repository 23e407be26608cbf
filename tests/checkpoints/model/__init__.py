"""The checkpoint protocol as a model, explored exhaustively. `python -m tests.checkpoints.model` prints the table."""
