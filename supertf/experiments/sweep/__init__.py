"""What runs experiments: descriptions, the cells they consist of, where those are measured, results."""
