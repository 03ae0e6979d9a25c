"""What the command line and Python share: fit, evaluate, predict, report, sweep."""
