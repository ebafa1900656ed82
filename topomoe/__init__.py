"""Topology and placement co-design for Mixture-of-Experts models."""
