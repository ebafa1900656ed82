"""The least time in which any routing can move a demand, with its proof and its splits."""

from topomoe.topologies.concurrent_flow.solver import ConcurrentFlow, solve

__all__ = ["ConcurrentFlow", "solve"]
