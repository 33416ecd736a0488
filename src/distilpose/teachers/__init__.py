"""Teachers: one contract (`base`), one file a kind."""
