"""pulvinar learns what to keep in models that connect images and brains."""
