"""Runs the blocks that nobody watches: one by one, fused in one call, or spread over ranks."""
