"""Many runs: jobs of a multirun, grids, searches, and their tables."""
