"""Numerical bugs reported in public, written anew as small functions with correct twins."""
