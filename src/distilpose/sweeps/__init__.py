"""Many runs with one command: jobs of a multirun, grids, searches, and their result tables."""
