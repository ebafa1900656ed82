"""Placements compared: batch by batch, in seconds, on a front, under shift."""
