"""What to keep. Tensors only: no subjects, no files."""
