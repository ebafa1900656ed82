"""Placements for the worst device's seconds, and their bound."""
