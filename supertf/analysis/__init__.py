"""What a model computes: losses, also by position, attention's entropy and sinks, the residual stream.

And what can be said of figures over seeds: intervals and paired differences.
"""
