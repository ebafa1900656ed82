"""What a step time includes and what it leaves out, for the settings of a run."""

from __future__ import annotations

from typing import Any

from topomoe.demand import DispatchSettings


def charged(config: dict[str, Any]) -> list[str]:
    """Return what is charged, a sentence each."""
    step = config.get("step", {})
    training = config.get("workload", {}).get("phase") == "training"
    gather = _gathering(config)
    sentences = [
        _sent(config),
        _all_to_all(step),
        f"Before dispatch, {' and '.join(gather)} replica routing pays for an all-gather of the "
        "counts, with an overhead of its own, since it chooses replicas by load."
        if gather
        else "",
        _compute(config),
        _capacity(config),
        "Backward, in training, is two more all-to-alls, both BF16 (the gradients of combine go "
        "out as dispatch did, those of dispatch come back as combine did), and twice the expert "
        "compute."
        if training
        else "",
        "A whole step adds attention, dense layers and the head"
        + (", three times their forward pass in training." if training else "."),
        _overlap(str(step.get("overlap", "none")), training),
        "The bound on dispatch and combine is, for each all-to-all, the overhead to start"
        + (" (and the gather of the counts)" if gather else "")
        + " plus the largest of the times that no routing beats: the worst device cut (bytes into "
        "or out of one device over the capacity of its links), the same cut around each node of "
        "rails, group of a dragonfly and board of a HammingMesh, and the volume bound (demand "
        "times its least hops, summed, over the capacity of all links). It knows no other "
        "bottleneck and neither latency nor store-and-forward, so the gap to it is at most what "
        "another routing could save.",
        "Percentiles are over batches drawn from the held-out requests by request and offset; "
        "intervals bootstrap the requests, not the batches, which share them.",
    ]
    return [sentence for sentence in sentences if sentence]


def _gathering(config: dict[str, Any]) -> list[str]:
    """Return the run's replica routings that choose by load."""
    return [
        str(name)
        for name in config.get("replica_routings", ())
        if DispatchSettings(replica_routing=str(name)).needs_counts
    ]


def _sent(config: dict[str, Any]) -> str:
    dispatch = config.get("dispatch", {})
    padded = float(dispatch.get("padded", 0.0))
    if padded > 0:
        copies = (
            f"full buffers of capacity factor {padded:g} from every device to every expert, "
            "whatever the tokens chose"
        )
    else:
        copies = {
            "device": "one copy of a token to each device that holds one of its experts",
            "node-relay": "one copy of a token to each node of "
            f"{dispatch.get('node_size', 1)} devices, forwarded inside it",
            "expert": "one copy of a token for each of its experts",
        }[str(dispatch.get("copies", "device"))]
    return (
        f"Dispatch sends {copies}, FP8 with its scales; combine sends BF16 partial results back, "
        "routed anew."
    )


def _all_to_all(step: dict[str, Any]) -> str:
    mtu = float(step.get("mtu", 0.0))
    forward = (
        f", its latency, and store-and-forward at each hop (packets of {mtu:g} bytes)"
        if mtu > 0
        else " and its latency (no store-and-forward)"
    )
    overhead = 1e6 * float(step.get("collective_overhead", 0))
    return f"{_transfer(step, forward)}, plus {overhead:g} us to start."


def _transfer(step: dict[str, Any], forward: str) -> str:
    if step.get("fidelity") == "max-min":
        rtol = float(step.get("max_min_rtol", 0.0))
        exact = f" (to {rtol:g} of the clock)" if rtol > 0 else ""
        return (
            "An all-to-all takes until its last flow is done under max-min fair sharing of the "
            f"links{exact}, each flow starting after its path's latency"
            + (", with store-and-forward at each hop" if float(step.get("mtu", 0.0)) > 0 else "")
        )
    return (
        "An all-to-all takes as long as the slowest pair's path: the worst load over capacity on "
        f"it{forward}"
    )


def _compute(config: dict[str, Any]) -> str:
    step = config.get("step", {})
    tile = int(step.get("tile_tokens", 0))
    tiles = f", tokens rounded up to whole tiles of {tile}" if tile > 0 else ""
    shared = (
        "The shared expert is placed and dispatched to as one more expert."
        if config.get("shared_expert") == "routed"
        else "A shared expert, where the model has one, runs where a token starts."
    )
    return (
        f"Expert compute is that of the slowest device ({step.get('device', '')}): a roofline of "
        "its experts' matrix products, weights read once for each expert that got a token"
        f"{tiles}. {shared}"
    )


def _capacity(config: dict[str, Any]) -> str:
    dispatch = config.get("dispatch", {})
    factor = float(dispatch.get("capacity_factor", 0.0))
    overflow = str(dispatch.get("overflow", "none"))
    if factor == 0 or overflow == "none":
        return ""
    rest = (
        "the rest is dropped"
        if overflow == "drop"
        else "the rest goes to the next expert with room that the token lacks, or is dropped"
    )
    return f"An expert takes at most {factor:g} times the mean load of a batch, first come; {rest}."


def _overlap(overlap: str, training: bool) -> str:
    if overlap == "none":
        return "Parts add up; nothing overlaps."
    return (
        f"Communication and compute overlap ({overlap}): the two halves of a batch take turns, one "
        "half's all-to-alls beside the other's compute and attention"
        + ("; the backward pass does not overlap" if training else "")
        + ". The bars show the parts before that."
    )


def left_out(config: dict[str, Any]) -> list[str]:
    """Return what is not charged, a sentence each."""
    sentences = [
        "Congestion control: under DCTCP a packet simulation takes 10 to 53 % longer.",
        "Message rates and copies inside a device, stragglers, other jobs on the same links"
        + ("." if config.get("failures") else ", and failures."),
        "Moving experts into place, and time to build or rewire a network: topologies are compared "
        "as they stand, at an equal "
        + {
            "iso-cost": "cost of network equipment by the bill of materials.",
            "iso-power": "power of network equipment by the bill of materials.",
        }.get(
            str(config.get("normalise")),
            "budget of bandwidth or ports; what they cost is in the table per dollar and watt.",
        ),
        "Accuracy: what dropped and re-routed pairs cost is not known; routing to replicas costs "
        "nothing."
        if _capacity(config)
        else "Accuracy: routing to replicas never changes which expert a token gets.",
    ]
    if not config.get("trace"):
        sentences.append(
            "Real traffic: the trace is synthetic, with the skew and domains of published "
            "measurements, not those of a particular service."
        )
    return sentences
