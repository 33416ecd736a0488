"""Pictures: skeletons, heat maps, contact sheets."""
