"""The checkpoint protocol as a model.

Explored exhaustively. `python -m tests.checkpoints.model` prints the table.
"""
