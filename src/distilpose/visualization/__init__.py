"""Drawing and logging of pictures: skeletons, heat maps, contact sheets."""
