"""`bitlens verify`: every promise of docs/numerics.md tried on a given model, bit by bit."""
