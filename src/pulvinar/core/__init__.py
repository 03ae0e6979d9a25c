"""Errors, settings, storage, checksums, progress: what every other folder stands on."""
