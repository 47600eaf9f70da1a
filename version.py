"""The version of bitlens; that of its numerics is in csrc/spec/version.h."""

__version__ = "0.1.0"
