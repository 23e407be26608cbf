"""Predict throughput, credits, cold starts and cost of a file system before it is deployed."""
