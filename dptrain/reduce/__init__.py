"""Sums over all shards and all ranks, in an order that does not know the number of ranks."""

from dptrain.config import Reduction
from dptrain.reduce.allreduce import AllReduce
from dptrain.reduce.reducer import Reducer
from dptrain.reduce.tree_reduce import TreeReduce

__all__ = ["REDUCERS", "Reducer"]

REDUCERS: dict[Reduction, type[AllReduce] | type[TreeReduce]] = {
    "tree": TreeReduce,
    "allreduce": AllReduce,
}
