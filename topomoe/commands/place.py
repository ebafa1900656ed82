"""What ``topomoe place`` prints: a placement's balance on training and held-out requests."""

from __future__ import annotations

from topomoe.inputs import least_exact_slots
from topomoe.placement import Placement, certificate, place
from topomoe.topologies.errors import InputError
from topomoe.trace import load_trace


def place_with_certificate(
    trace: str,
    devices: int,
    slots: int,
    method: str,
    test_fraction: float,
    model: str | None,
    seed: int,
) -> tuple[Placement, list[dict[str, str]]]:
    """Return the placement made on the training requests and rows about it.

    The bound holds for every placement with these slots on the load it was made for; balance on
    held-out requests is what a served trace will see.
    """
    for field, number, least in (("devices", devices, 1), ("slots", slots, 0), ("seed", seed, 0)):
        if number < least:
            raise InputError(f"{field} must be >= {least}, got {number}")
    loaded = load_trace(trace, model=model)
    train, test = loaded.split(test_fraction, seed)
    placement = place(
        train,
        devices=devices,
        slots=slots or least_exact_slots(loaded.num_experts, devices),
        method=method,
        seed=seed,
    )
    rows = []
    for name, part in (("training", train), ("held out", test)):
        proof = certificate(placement, part.load())
        balancedness = placement.balancedness(part.load())
        rows.append(
            {
                "requests": f"{name} ({part.num_requests})",
                "balancedness mean": f"{balancedness.mean():.4f}",
                "worst layer": f"{balancedness.min():.4f}",
                "max/mean worst": f"{1.0 / balancedness.min():.4f}",
                "gap to bound mean": f"{proof.gap.mean():.2%}",
                "worst gap": f"{proof.gap.max():.2%}",
            }
        )
    return placement, rows
