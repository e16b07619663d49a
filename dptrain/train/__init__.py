"""From data to a trained model: the loop, and what stands before and after it."""
