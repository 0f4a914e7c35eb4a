"""What the lab claims: hypotheses about each experiment, each written down before the run that judges it."""
