"""So that PyTorch DDP is timed as dptrain is: one run on every rank of torchrun, one JSON line.

Written as PyTorch's own pages advise: gradients that are views of the buckets, the fused update,
gradients set to None, one thread a rank, rows taken from memory by number without a DataLoader.
Initial weights are drawn as dptrain draws them (He et al., 2015; biases 0), from another stream.

    torchrun --standalone --nproc-per-node=2 run_torch.py JOB   (what a job holds is in compare.py)
"""

import gc
import itertools
import json
import runpy
import sys
import time
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def network(sizes: list[int]) -> Any:
    """Return dense layers of these sizes with relu between them."""
    layers: list[Any] = []
    for inputs, outputs in itertools.pairwise(sizes):
        dense = nn.Linear(inputs, outputs)
        nn.init.kaiming_normal_(dense.weight, nonlinearity="relu")
        nn.init.zeros_(dense.bias)
        layers += [dense, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def perceptron_loss(outputs: Any, targets: Any) -> Any:
    """Return the mean loss of a perceptron's outputs."""
    if targets.ndim == 1:
        return nn.functional.cross_entropy(outputs, targets)
    return nn.functional.mse_loss(outputs, targets)


def of_file(job: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """Return the module that a file makes, and the mean of its loss over what counts."""
    made = runpy.run_path(job["file"])

    def mean(outputs: Any, targets: Any) -> Any:
        found = made["loss"](outputs, targets)
        losses, counts = found if isinstance(found, tuple) else (found, torch.ones_like(found))
        return (losses * counts).sum() / counts.sum()

    classes = 0 if y.is_floating_point() else int(y.max()) + 1
    return made["build"](tuple(x.shape[1:]), classes), mean


def train_epoch(
    model: Any, loss_of: Any, optimizer: Any, x: Any, y: Any, job: Any, epoch: int
) -> float:
    """Do the steps of an epoch and return this rank's mean loss.

    All ranks draw the same order; each takes every n-th row of it, as DistributedSampler does.
    """
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
    own = order[dist.get_rank() :: dist.get_world_size()]
    batches = own.split(job["batch_size"] // dist.get_world_size())
    loss_sum = 0.0
    for rows in batches:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model(x.index_select(0, rows)), y.index_select(0, rows))
        loss.backward()
        optimizer.step()
        loss_sum += loss.item()
    return loss_sum / len(batches)


def train(job: Any) -> dict[str, float]:
    """Train from start to end and return what it came to, the losses averaged over the ranks."""
    with np.load(job["data"]) as data:
        x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
    if job["file"]:
        net, loss_of = of_file(job, x, y)
    else:
        y = y.reshape(-1, 1) if job["task"] == "regression" else y
        net, loss_of = network([x.shape[1], *job["hidden"], job["outputs"]]), perceptron_loss
    model = DistributedDataParallel(net, gradient_as_bucket_view=True)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=job["learning_rate"], momentum=job["momentum"], fused=True
    )
    loss_after = partial(train_epoch, model, loss_of, optimizer, x, y, job)
    losses = [loss_after(0)]
    dist.barrier()
    start = time.perf_counter()
    losses += map(loss_after, range(1, job["epochs"]))
    seconds = time.perf_counter() - start
    mean = torch.tensor(losses) / dist.get_world_size()
    dist.all_reduce(mean)
    steps = (job["epochs"] - 1) * len(x) // job["batch_size"]
    first, last = mean[0].item(), mean[-1].item()
    return {"ms": 1000 * seconds / steps, "steps": steps, "first_loss": first, "loss": last}


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group("gloo")
    found = train(json.loads(sys.argv[1]))
    if dist.get_rank() == 0:
        print(json.dumps(found))
    gc.collect()  # a model that still holds the group can make gloo abort at exit
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
