"""The reference's side: the score store, and the pass that fills it."""
