"""How probes are judged."""
