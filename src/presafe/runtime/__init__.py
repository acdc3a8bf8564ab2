"""Run on this machine: launchers, workers, memory, number types, progress, checkpoints."""
