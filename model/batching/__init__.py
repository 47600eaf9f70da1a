"""Continuous batching: rows that join and leave a batch at any step."""
