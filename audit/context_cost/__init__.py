"""`bitlens context-cost`: what a longer context costs, counted and measured."""
