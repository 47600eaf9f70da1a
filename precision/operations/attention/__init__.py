"""Attention, and the soft cap of scores and logits."""
