"""Loops, checkpoints and run folders."""
