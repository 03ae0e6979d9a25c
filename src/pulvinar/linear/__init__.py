"""Ridge, banded ridge, partial least squares, linear probes, nearest neighbours."""
