"""Codes and scales of blocks: int8 a channel, fp8, mxfp4, nvfp4, and blocks of 4 and 8 bits."""
