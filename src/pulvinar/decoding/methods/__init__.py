"""Methods of decoding; the folder is the registry."""
