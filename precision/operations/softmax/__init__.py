"""Softmax, and the logarithm of its sum."""
