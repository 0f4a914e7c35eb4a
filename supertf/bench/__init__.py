"""Speed, as ratios to other implementations that take turns with ours in one run."""
