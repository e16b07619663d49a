"""PyTorch's settings, which are the process's: lent to one call at a time, so that it repeats."""

import contextlib
import threading
from collections.abc import Iterator

from dptrain.model.own_code import missing
from dptrain.threads import threads_here

try:
    import torch
except ImportError as error:
    raise missing("torch", error) from None

LOCK = threading.RLock()


@contextlib.contextmanager
def settings(seed: int) -> Iterator[None]:
    """Compute with the run's threads, the same way each time; then all is as it was."""
    with LOCK:
        threads, debug = torch.get_num_threads(), torch.get_deterministic_debug_mode()
        fill, random = torch.utils.deterministic.fill_uninitialized_memory, torch.get_rng_state()
        torch.set_num_threads(threads_here())
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_deterministic_debug_mode(debug)
            torch.utils.deterministic.fill_uninitialized_memory = fill
            torch.set_rng_state(random)
