"""One weight: found by its spikes, proven beside controls, scaled and restored, and what others published."""
