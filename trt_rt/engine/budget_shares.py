"""How several engines share one weight streaming budget."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["budget_shares"]


def budget_shares(budget: int, sizes: Sequence[int]) -> list[int]:
    """Divide a budget in proportion to sizes, to the byte.

    Each share is rounded down, and what is left over goes to the largest remainders, earlier ones first (the
    method of largest remainders, or Hamilton's). In whole numbers, so that sizes beyond 2**53 are exact too.

    Parameters
    ----------
    budget : int
        Bytes, from 0 to the sum of `sizes`.
    sizes : sequence of int
        Bytes that each could use; their sum is greater than 0.

    Returns
    -------
    list of int
        A share for each size, from 0 to that size; they sum up to `budget`.
    """
    total = sum(sizes)
    shares = [budget * size // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda index: -(budget * sizes[index] % total))
    for index in by_remainder[: budget - sum(shares)]:
        shares[index] += 1
    return shares
