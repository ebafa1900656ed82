"""What to know of a bench of routers before using its numbers, for what a run holds."""

from __future__ import annotations

from typing import Any

from topomoe.router_results import NOT_CAUSAL, TRAINED, RouterResults


def limits(results: RouterResults, config: dict[str, Any]) -> list[str]:
    """Return what a reader must know of quality, balance, speed and of repeating the run."""
    records = set(results.frame["record"])
    sentences = [
        *([] if config.get("pretrained") else [_young(results, config)]),
        *_quality(results, records, config),
        _repeated(config),
    ]
    if results.timing is not None:
        sentences.append(
            "Wall times and tokens a second are of the machine that ran the bench and of what else "
            "it did; they alone differ from run to run, and stand in timing.csv."
        )
    return sentences


def _young(results: RouterResults, config: dict[str, Any]) -> str:
    """Return that the models are small and hardly trained, with their size where it is known."""
    quality = results.rows("quality", ())
    sizes = quality["parameters"].max() if "parameters" in quality else 0
    curve = results.rows("curve", ())
    tokens = curve["tokens"].max() if "tokens" in curve else 0
    named = [f"{sizes / 1e6:.2g} million parameters at most"] if sizes else []
    named += [f"at most {tokens:,.0f} tokens of training"] if tokens else []
    size = f" ({', '.join(named)})" if named else ""
    passes = _passes(float(tokens), config)
    return (
        f"The models are small and young in training{size}{passes}. Perplexities are far from "
        "those of models in use; a router that pays off late does not show it here, nor how uneven "
        "its experts become in long training. The ranking is of this size and this budget."
    )


def _passes(tokens: float, config: dict[str, Any]) -> str:
    parts = config.get("run", {}).get("text", {}).get("parts", {})
    known = int(parts.get("training", {}).get("tokens", 0))
    return f", {tokens / known:.2g} passes over their text" if known and tokens else ""


def _quality(results: RouterResults, records: set[str], config: dict[str, Any]) -> list[str]:
    sentences = []
    routers = set(results.frame["router"].dropna()) if "router" in results.frame else set()
    for router in NOT_CAUSAL:
        if router in routers:
            sentences.append(
                f"{router} is not causal: its experts choose among the tokens of a sequence, later "
                "ones included, so that its own perplexity compares with none, and it could not "
                "decode so. It is ranked by predictions that see no later token, where those were "
                "measured."
            )
    if "quality" in records and "top1" in routers and len(routers) > 1:
        sentences.append(
            "top1 sends a token to one expert: its step time and its perplexity are both of less "
            "computing and sending than those of routers that send it to several."
        )
    if "tuning" in records:
        steps = f" of {config['tune_steps']} steps" if "tune_steps" in config else ""
        sentences.append(
            f"Learning rates and balance were chosen by short trainings{steps} on validation text; "
            "longer ones may want others."
        )
    if "document" in records:
        sentences.append(
            f"Seeds train a router from scratch and are what tests count, {_seeds(results)} here: "
            "few, so that a difference that is not significant may still be one. The corpus and "
            "its split are the same for all seeds."
        )
    if "assignment" in records:
        factor = float(config.get("assignment_factor", 0.0))
        dropped = f"at capacity factor {factor:g}" if factor else "with no pair dropped"
        sentences.append(
            f"Assignment changes are measured at inference, {dropped}; models were not trained to "
            "be assigned so."
        )
    if "layer" in records:
        sentences.append(_layers(results))
    return sentences


def _seeds(results: RouterResults) -> int:
    return int(results.rows("document", ("seed",))["seed"].nunique())


def _layers(results: RouterResults) -> str:
    sources = set(results.rows("layer", ("source",))["source"])
    text = (
        "Gini coefficients depend on the text, on the number of experts and on how many tokens "
        "were counted"
    )
    if TRAINED in sources:
        text += "; the published ones are of other text and of models trained far longer"
    return f"{text}."


def _repeated(config: dict[str, Any]) -> str:
    threads = "one thread a process" if not config.get("pretrained") else "the same threads"
    return (
        "The same settings, seed and versions give the same bytes of results for the same number "
        f"of threads that torch computes with ({threads} here, however many processes): another "
        "number adds in another order. Wall times are left out of them."
    )


def priced(config: dict[str, Any]) -> list[str]:
    """Return how the time of a step is reckoned, a sentence each."""
    network = config.get("network", {})
    width = network.get("width", "")
    batches = f"{network.get('phase', '')} batches".strip()
    fraction = float(network.get("scored_fraction", 0.0))
    scored = f"{100 * fraction:g} % of the" if fraction else "some"
    sentences = [
        "A trained router's choices are priced at the width of a real model"
        + (f", {width}" if width else "")
        + ": its layers, experts and experts a token are those of the trace, hidden vectors and "
        "expert matrices those of the real one. At the small model's own width a step would be "
        "fixed overheads and no more.",
        f"Steps are simulated, none was run on a cluster: the MoE layers of {batches} drawn from "
        f"{scored} held-out windows, experts being placed by the others. Percentiles are over "
        "batches, which share those windows.",
        "Tokens start on any device alike. Where there is a capacity factor, an expert takes that "
        "many times the mean load of a batch, first come, and what is dropped is neither sent nor "
        "computed.",
        "Networks are compared at equal bandwidth out of every device (iso-injection), whatever "
        "they cost; moving experts into place is not charged.",
    ]
    return sentences
