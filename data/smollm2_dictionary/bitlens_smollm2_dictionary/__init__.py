"""Files only: `bitlens.interp.load_dictionary` finds them here."""
