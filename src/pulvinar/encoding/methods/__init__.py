"""Methods of encoding; the folder is the registry."""
