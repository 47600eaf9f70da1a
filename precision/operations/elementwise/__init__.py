"""Sums, products and functions, element by element."""
