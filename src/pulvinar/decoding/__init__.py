"""Which voxels, which image? From masks of voxels to decoders, pictures and the page."""
