"""PyTorch's settings in this process: a run's, lent to a call that computes, and then as before."""

import contextlib
import ctypes
import sys
import threading
from collections.abc import Iterator

from dptrain.launch import announced
from dptrain.model.own_code import library
from dptrain.streams import warn
from dptrain.threads import threads_here

torch = library("torch")

MKL_FREE = 1
"""What MKL says it keeps to where nobody has asked: nothing (MKL_CBWR_BRANCH_OFF)."""

LOCK = threading.RLock()
"""PyTorch's settings are the process's: they are lent to one call at a time, so that it repeats."""


def check_mkl() -> None:
    """Warn, on the first rank, where MKL has begun without what dptrain's import asks of it."""
    with contextlib.suppress(AttributeError, OSError):  # there may be no MKL
        asked = ctypes.CDLL(torch._C.__file__).mkl_serv_cbwr_get(-1)
        launch = announced()
        if asked == MKL_FREE and (launch is None or launch.rank == 0):
            warn(
                "PyTorch has multiplied before dptrain was imported, so that bits may depend on "
                "where arrays lie in memory: import dptrain first, or set MKL_CBWR=AUTO"
            )


@contextlib.contextmanager
def threads() -> Iterator[None]:
    """Compute with the run's threads, as their number decides bits; then with those before."""
    with LOCK:
        before, own = torch.get_num_threads(), threads_here()
        if before != own:  # to ask is quick, and a transform asks
            torch.set_num_threads(own)
        try:
            yield
        finally:
            if torch.get_num_threads() != before:
                torch.set_num_threads(before)


@contextlib.contextmanager
def settings(seed: int) -> Iterator[None]:
    """Compute as a run does, the same way each time; then all is as it was."""
    with threads(), torch.random.fork_rng(devices=[]):
        debug = torch.get_deterministic_debug_mode()
        fill = torch.utils.deterministic.fill_uninitialized_memory
        torch.set_deterministic_debug_mode("error")
        if "torch._inductor" in sys.modules:  # else that would be imported here, for 2 s
            torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_deterministic_debug_mode(debug)
            torch.utils.deterministic.fill_uninitialized_memory = fill
