"""Many weights: pruned in every way, quantized, repaired, packed and skipped."""
