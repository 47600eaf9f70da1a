"""Rotary positions: their scaling, the parameters it is read from, and tables of cos and sin."""

from .tables import RopeTable, RopeTables, rope_table

__all__ = ["RopeTable", "RopeTables", "rope_table"]
