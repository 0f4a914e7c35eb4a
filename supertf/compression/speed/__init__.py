"""What pruning and quantizing save: kernels that skip what does not count, or read fewer bytes."""
