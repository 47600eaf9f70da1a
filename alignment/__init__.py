"""Constitutional AI on a model that one can open: what a constitution changes, and what not."""
