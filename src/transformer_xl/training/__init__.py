"""Training: settings, schedule, loop and the folder that a run leaves."""
