"""The operations a transformer is made of: their interface, and each backend's way to run them."""

from .interface import Ops

__all__ = ["Ops"]
