"""Arrays in, numbers out: metrics, comparisons of RDMs, resampling, noise ceilings."""
