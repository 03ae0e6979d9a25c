"""What every training shares: optimizers, schedules, precision, processes, run folders, views, losses of several wings."""
