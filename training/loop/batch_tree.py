"""The order in which what a step's batches give is added: a pairwise tree that their number alone decides.

A node is a level and an index: node i of level k is the sum over the batches from i * 2^k on, 2^k of them or what is
left of them at the end of the step. Two neighbours of a level make one of the next, an odd one out goes up as it is. So
six batches give ((0 + 1) + (2 + 3)) + (4 + 5), whoever has which of them; up to two give what adding in order gives.

Nothing of it needs more than the sums that wait for their right neighbour: of n batches one after the other at most
ceil(log2(n)) - 1 wait while the next one is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

Node = tuple[int, int]
Sum = TypeVar("Sum")


def joined(waiting: Sequence[Node], node: Node, num_batches: int) -> tuple[Node, int]:
    """Return the node that a new sum becomes with those waiting to its left, and how many of them it takes in.

    >>> joined([], (0, 0), 6), joined([(0, 0)], (0, 1), 6), joined([(1, 0), (0, 2)], (0, 3), 6)
    (((0, 0), 0), ((1, 0), 1), ((2, 0), 2))
    >>> joined([(0, 3), (0, 4)], (0, 5), 6)  # 3 is not its neighbour: somebody else has 2
    ((2, 1), 1)
    """
    level, index = node
    taken = 0
    while True:
        if index % 2:
            left = waiting[-1 - taken] if taken < len(waiting) else None
            if left != (level, index - 1):
                return (level, index), taken
            taken += 1
        elif (index + 1) << level < num_batches or not index:  # a right neighbour comes, or this is the whole
            return (level, index), taken
        level, index = level + 1, index // 2


def nodes_of(batches: Iterable[int], num_batches: int) -> list[Node]:
    """Return the fewest nodes that make up some neighbouring batches of a step, in their order.

    >>> nodes_of(range(6), 6), nodes_of(range(3), 6), nodes_of(range(3, 6), 6), nodes_of(range(4, 4), 6)
    ([(3, 0)], [(1, 0), (0, 2)], [(0, 3), (2, 1)], [])
    """
    nodes: list[Node] = []
    for number in batches:
        node, taken = joined(nodes, (0, number), num_batches)
        del nodes[len(nodes) - taken :]
        nodes.append(node)
    return nodes


def sum_of(sums: Iterable[tuple[Node, Sum]], num_batches: int, add: Callable[[Sum, Sum], Sum]) -> Sum:
    """Return the sum over a whole step from those of its nodes, which come in the order of their batches.

    >>> named = {(1, 0): "(0+1)", (0, 2): "2", (0, 3): "3", (2, 1): "(4+5)"}
    >>> sum_of(named.items(), 6, lambda left, right: f"({left}+{right})")
    '(((0+1)+(2+3))+(4+5))'
    """
    waiting: list[tuple[Node, Sum]] = []
    for newest, value in sums:
        node, taken = joined([held for held, _ in waiting], newest, num_batches)
        whole = value
        for _ in range(taken):
            whole = add(waiting.pop()[1], whole)
        waiting.append((node, whole))
    ((_, total),) = waiting
    return total
