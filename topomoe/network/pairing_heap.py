"""Pairing heaps over flows, kept in arrays: each flow is in one heap at most.

Fredman, Sedgewick, Sleator, Tarjan, "The pairing heap", Algorithmica 1 (1986). A heap is the id of
its root, -1 when empty. ``before`` is a node's left sibling; its parent if it is the first child.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from topomoe.topologies.kernel import kernel
from topomoe.topologies.topology import FloatArray, IntArray


class Heap(NamedTuple):
    """What each flow holds, [F]: its key and its neighbours in the heap, -1 for none."""

    key: FloatArray
    child: IntArray
    after: IntArray
    before: IntArray


def empty_heap(flows: int) -> Heap:
    """Return the arrays for that many flows, none of them in a heap."""
    child, after, before = np.full((3, flows), -1)
    return Heap(np.zeros(flows), child, after, before)


@kernel
def meld(heap: Heap, a: int, b: int) -> int:
    """Return the root of two heaps joined."""
    if a < 0:
        return b
    if b < 0:
        return a
    if heap.key[b] < heap.key[a]:
        a, b = b, a
    first = heap.child[a]
    heap.after[b] = first
    if first >= 0:
        heap.before[first] = b
    heap.before[b] = a
    heap.child[a] = b
    return a


@kernel
def _meld_children(heap: Heap, node: int) -> int:
    """Return the root of the heap that a removed node's children make: pair by pair, then back."""
    current = heap.child[node]
    heap.child[node] = -1
    pairs = -1  # the melded pairs, last first, linked by ``after``
    while current >= 0:
        other = heap.after[current]
        following = heap.after[other] if other >= 0 else -1
        heap.after[current] = heap.before[current] = -1
        if other >= 0:
            heap.after[other] = heap.before[other] = -1
        pair = meld(heap, current, other)
        heap.after[pair] = pairs
        pairs = pair
        current = following
    root = -1
    while pairs >= 0:
        following = heap.after[pairs]
        heap.after[pairs] = -1
        root = meld(heap, root, pairs)
        pairs = following
    return root


@kernel
def remove(heap: Heap, root: int, node: int) -> int:
    """Return the root of the heap after taking ``node`` out of it."""
    if node == root:
        return _meld_children(heap, node)
    left, right = heap.before[node], heap.after[node]
    if heap.child[left] == node:
        heap.child[left] = right
    else:
        heap.after[left] = right
    if right >= 0:
        heap.before[right] = left
    heap.after[node] = heap.before[node] = -1
    return meld(heap, root, _meld_children(heap, node))
