"""Placements for loads not seen: robust, rebalanced, updated while serving."""
