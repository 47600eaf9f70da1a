"""The gate of experts: facts of `moe_gate`."""
