"""What a step time includes and what it leaves out, for the settings of a run."""

from __future__ import annotations

from typing import Any


def charged(config: dict[str, Any]) -> list[str]:
    """Return what is charged, a sentence each."""
    dispatch, step = config.get("dispatch", {}), config.get("step", {})
    overlap = step.get("overlap", "none")
    copies = {
        "device": "one copy of a token to each device that holds one of its experts",
        "node-relay": "one copy of a token to each node, forwarded inside it",
        "expert": "one copy of a token for each of its experts",
    }.get(str(dispatch.get("copies", "device")), str(dispatch.get("copies")))
    sentences = [
        f"Dispatch sends {copies}, FP8 with its scales; combine sends BF16 partial results back, "
        "routed anew.",
        "An all-to-all takes as long as the slowest pair's path: the worst load over capacity on "
        "it, its latency, and store-and-forward at each hop"
        f" (packets of {step.get('mtu', 0):g} bytes), plus "
        f"{1e6 * float(step.get('collective_overhead', 0)):g} us to start.",
        f"Expert compute is that of the slowest device ({step.get('device', '')}): a roofline of "
        "its experts' matrix products, weights read once for each expert that got a token.",
        "Replica routings that look at loads also pay for an all-gather of the counts.",
        "A whole step adds attention, dense layers and the head.",
        "Parts add up; nothing overlaps."
        if overlap == "none"
        else f"Communication and compute overlap ({overlap}); the bars show the parts before that.",
        "The bound on dispatch and combine is the worst cut: bytes that must cross it over its "
        "capacity, whatever the routing; it knows nothing of latency.",
        "Percentiles are over batches drawn from the held-out requests by request and offset; "
        "intervals bootstrap the requests, not the batches, which share them.",
    ]
    return sentences


def left_out(config: dict[str, Any]) -> list[str]:
    """Return what is not charged, a sentence each."""
    sentences = [
        "Congestion control: under DCTCP a packet simulation takes 10 to 53 % longer.",
        "Message rates and copies inside a device, failures, stragglers, and other jobs on the "
        "same links.",
        "Moving experts into place, and time or money to build or rewire a network: topologies "
        "are compared as they stand, at an equal budget of bandwidth or ports, not of cost.",
        "Accuracy: routing to replicas never changes which expert a token gets.",
    ]
    if not config.get("trace"):
        sentences.append(
            "Real traffic: the trace is synthetic, with the skew and domains of published "
            "measurements, not those of a particular service."
        )
    return sentences
