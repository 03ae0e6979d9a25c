"""Methods of representational similarity; the folder is the registry."""
