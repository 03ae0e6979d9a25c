"""Methods of channel selection; the folder is the registry."""
