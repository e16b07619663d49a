"""Hashes of long vectors as a tree over fixed blocks: shared work, a value free of the ranks."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Floats
from dptrain.reduce.sums import gather_leaves
from dptrain.world import World, cut

HASHED = 8192
"""Entries in a block, but for the last. Measured: 1.41 GB/s, with 1024 0.89, with 16384 1.46."""


def block_digests(vector: Floats, blocks: Iterable[int]) -> NDArray[np.uint8]:
    """Return the SHA-256 of each of some blocks of a vector's bytes, shape [blocks, 32]. Local."""
    starts = [block * HASHED for block in blocks]
    found = [hashlib.sha256(vector[at : at + HASHED].data).digest() for at in starts]
    return np.frombuffer(b"".join(found), np.uint8).reshape(-1, 32)


def root(digests: NDArray[np.uint8]) -> str:
    """Return the hash over all blocks' hashes [blocks, 32], in hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(digests).data).hexdigest()


def digest(world: World, vector: Floats) -> str:
    """Return the hash of a vector [n] that every rank can read, each rank hashing its share.

    It is the SHA-256 over the SHA-256 of each block, so free of the number of ranks. Collective:
    every rank must call this.
    """
    blocks = -(-len(vector) // HASHED)
    return root(gather_leaves(world, block_digests(vector, world.mine(blocks)), blocks))


def first_difference(
    world: World, vector: Floats, copies: list[range]
) -> tuple[list[int], int] | None:
    """Compare the copies of a vector [n] that should be one; None where they are.

    `copies` are the ranks that share each copy. Else returns the ranks whose copy differs from
    the first one's, and the first entry that does. Collective: every rank must call this.
    """
    blocks = -(-len(vector) // HASHED)
    own = next(ranks for ranks in copies if world.rank in ranks)
    mine = block_digests(vector, cut(blocks, len(own), world.rank - own.start))
    everyone = world.allgather(mine)
    wholes = [np.concatenate([everyone[rank] for rank in ranks]) for ranks in copies]
    differ = np.array([(whole != wholes[0]).any(axis=1) for whole in wholes])  # [copies, blocks]
    if not differ.any():
        return None
    start = int(differ.any(axis=0).argmax()) * HASHED
    found = np.array(world.allgather(vector[start : start + HASHED].copy())).view(np.uint8)
    bytes_differ = (found != found[0]).any(axis=0).reshape(-1, vector.itemsize)
    wrong = [
        rank for ranks, blocks in zip(copies, differ, strict=True) for rank in ranks if any(blocks)
    ]
    return wrong, start + int(bytes_differ.any(axis=1).argmax())
