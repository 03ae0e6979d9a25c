"""Where the jobs of a sweep run: here, in worker processes, on SLURM, on a Dask scheduler."""
