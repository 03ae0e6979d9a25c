"""`pulvinar sweep`: a grid of settings, run as jobs on an engine, one table over all."""
