"""The update: transforms of the mean gradient in a row, on any slice of the vector."""
