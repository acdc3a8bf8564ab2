"""Join rooms into what a command does: run, measure, sweep, compare, look inside, monitor, plan."""
