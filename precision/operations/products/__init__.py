"""Matrix products, and what is one: convolutions, and lookups as products with rows of 0 and 1."""
