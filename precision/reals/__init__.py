"""The meaning of each operation over the real numbers, and three ways to evaluate it."""
