"""Offsets in the arena: values whose lives do not overlap share bytes."""

from __future__ import annotations

ALIGN = 64


def assign_offsets(storages) -> int:
    """Set `offset` of every storage (with first, last, nbytes); return the bytes needed.

    Greedy by size: the largest first, each at the lowest gap among those alive at the same time.
    """
    placed = []
    total = 0
    for storage in sorted(storages, key=lambda s: (-s.nbytes, s.first)):
        alive = sorted(
            (s.offset, s.offset + s.nbytes) for s in placed if s.first <= storage.last and storage.first <= s.last
        )
        offset = 0
        for start, end in alive:
            if offset + storage.nbytes <= start:
                break
            offset = max(offset, -(-end // ALIGN) * ALIGN)
        storage.offset = offset
        placed.append(storage)
        total = max(total, offset + storage.nbytes)
    return total
