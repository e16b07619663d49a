"""Sums over all shards and all ranks, in an order that does not know the number of ranks."""
