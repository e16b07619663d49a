"""What a step moves at least, in bytes and operations: the floors beside which times are shown."""

from dptrain.config import TrainConfig
from dptrain.model.mlp import MLP
from dptrain.optim.optimizer import Optimizer
from dptrain.reduce.layout import areas, held_by, rank_slices, sums_left
from dptrain.world import World, cut


def traffic(model: MLP, optimizer: Optimizer, config: TrainConfig, world: World) -> dict[str, int]:
    """Return the bytes that this rank must move in a step at the least: in memory, by part, and
    those that it sends to other nodes, as "network".

    Reducing reads the shards' sums and writes theirs, where there are several. The optimizer reads
    the gradient, and reads and writes parameters and state. The arithmetic beside the products
    reads and writes what they made of each unit, once forward and, outputs aside, once back. Data
    reads and writes the rows.
    """
    shards, node, nodes = config.num_shards, world.ranks_here, world.nodes
    rows = sum(len(cut(config.batch_size, shards, shard)) for shard in world.mine(shards))
    slices = [s.stop - s.start for s in rank_slices(model.num_params, nodes)]
    held = {ranks: held_by(ranks, shards, world.size) for ranks in nodes}
    sums = {ranks: len(sums_left(held[ranks], shards)) for ranks in nodes}
    owner, own = world.rank - node.start, slices[world.rank]
    area = dict(enumerate(areas(model.num_params, nodes))).get(owner, slice(0, 0))
    adds, sent = len(held[node]) > sums[node], 0
    reducing = (area.stop - area.start) * (len(held[node]) + sums[node]) * adds
    if len(nodes) > 1 and area.stop > area.start:
        reducing += own * (sum(sums.values()) + 1)
        others = [ranks for ranks in nodes if ranks != node]
        sent = sum(own + slices[ranks[owner]] * sums[node] for ranks in others)
    units = 2 * sum(model.sizes[1:-1]) + model.sizes[-1]
    states = sum(len(state) for state in optimizer.state)
    entries = {
        "other_arithmetic": 2 * rows * units,
        "reducing": reducing,
        "optimizer": (3 + 2 * states) * own,
        "data": 2 * rows * model.sizes[0],
        "network": sent,
    }
    return {part: count * model.dtype.itemsize for part, count in entries.items()}
