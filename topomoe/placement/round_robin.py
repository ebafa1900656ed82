"""Experts dealt to the devices in turn, as cards are."""

from __future__ import annotations

from math import lcm

import numpy as np

from topomoe.placement.problem import PlacementProblem, Slots, even_shares


def assign(problem: PlacementProblem) -> Slots:
    """Return device d holding experts d, d + N, d + 2N, ... mod E, with even shares.

    Card i goes to device i mod N and bears expert i + floor(i / lcm(N, E)) mod E. Without the
    second term, device d would get expert d again as its card E/g, with g = gcd(N, E). With it,
    cards j of a device run in blocks b = floor(j / (E/g)); a block holds distinct experts of one
    residue class d + b modulo g, and S/N < E leaves b < g, so no device holds an expert twice.
    """
    devices, experts = problem.num_devices, problem.num_experts
    card = np.arange(problem.num_slots)
    dealt = (card + card // lcm(devices, experts)) % experts
    row = dealt.reshape(problem.slots_per_device, devices).T.ravel()
    slot_expert = np.tile(row, (problem.num_layers, 1)).astype(np.int32)
    return slot_expert, even_shares(slot_expert, experts)
