"""Files only: `bitlens.interp.probes.Probe.load` finds them here."""
