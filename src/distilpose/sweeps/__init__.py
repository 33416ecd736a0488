"""Many runs by one command: the jobs of a multirun, grids, searches, and their result tables."""
