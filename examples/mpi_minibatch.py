"""Step 3 of 4, after numpy_minibatch.py: the rows of the minibatch on several processes.

Each process holds some rows, not equally many: of four examples three processes hold 1, 1 and 2.
Each adds up the gradients of its own. Allreduce adds the sums and gives the total to all. Each
divides it once, by the examples of the whole minibatch, and makes the same update to its own copy
of the parameters. The mean of the processes' means would be wrong: see part 5 of step 1.

    mpirun -n 3 python examples/mpi_minibatch.py

The printed numbers are those of the steps before. Their last bits may change with the number of
processes, for the sum is grouped in another way. Step 4, dptrain_minibatch.py, ends that too.
"""

import numpy as np
from mpi4py import MPI
from numpy_minibatch import LEARNING_RATE, NAMES, START, TARGET, X, gradient_sum, show

world = MPI.COMM_WORLD
mine = slice(world.rank * len(X) // world.size, (world.rank + 1) * len(X) // world.size)

own = gradient_sum(START, X[mine], TARGET[mine])
total = np.empty_like(own)
world.Allreduce(own, total)  # the sum over the processes
mean = total / len(X)  # the one division, by 4 and not by this process's rows
new = START - LEARNING_RATE * mean

everyone = world.gather((len(X[mine]), own, new))
if everyone is not None:  # on the first process
    print(" " * 7 + "".join(f"{name:>8}" for name in NAMES))
    for rank, (_, part, _) in enumerate(everyone):
        show(f"rank {rank}", part)
    for label, row in [("sum", total), ("mean", mean), ("new", new)]:
        show(label, row)
    print("examples on each rank:", *(count for count, _, _ in everyone))
    print("all have the same new parameters:", all((new == other).all() for *_, other in everyone))
