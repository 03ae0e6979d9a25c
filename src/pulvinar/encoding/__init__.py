"""How well does an image predict a voxel? Ridge encoding, tuned networks, analyses, maps, the page."""
