"""What arrays are called in every room."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
"""Real numbers of either precision: parameters, gradients, inputs."""

Array = NDArray[Any]
"""Whatever a file or a checkpoint holds."""

Form = tuple[str, tuple[int, ...]]
"""The type of an array's entries, and its shape."""

Forms = dict[str, Form]
"""Those of named arrays."""
