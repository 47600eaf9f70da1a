"""What runs a range of blocks: fused in one call, or one by one to save memory."""
