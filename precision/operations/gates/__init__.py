"""SiLU, GELU and the gates made of them, plain and clamped."""
