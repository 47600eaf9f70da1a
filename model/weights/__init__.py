"""Weights before they are packed: checkpoints, their formats, and architectures' tensor names."""
