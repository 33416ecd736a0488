"""Teachers: their interface (`base`), and one file for each kind."""
