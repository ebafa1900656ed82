"""The page of a bench of routers: what was run, what came out, and what to know of it."""

from __future__ import annotations

from typing import Any

from topomoe.report.findings_network import listed
from topomoe.report.findings_routers import router_findings
from topomoe.report.method_routers import limits, priced
from topomoe.report.write import Page, Section, pictures
from topomoe.router_results import RouterResults, capacity_text, read_routers
from topomoe.run_folder import RunFolder
from topomoe.study_results import counted
from topomoe.tables_routers import router_tables


def routers_page(folder: RunFolder) -> Page:
    """Return what the report of a bench says; InputError where its results are damaged."""
    from topomoe.plots.router_figures import draw_routers, figures_of

    results, config = read_routers(folder), folder.config()
    figures = figures_of(results)
    kinds = [("What to know of the numbers", tuple(limits(results, config)))]
    if {"step", "assignment_step"} & set(results.frame["record"]):
        kinds.append(("How a step is priced", tuple(priced(config))))
    return Page(
        title=_title(results, config),
        subtitle="What a router's language is worth, and what it costs on a network: a bench of "
        "topomoe",
        findings=router_findings(results),
        asked=tuple(asked(results, config)),
        pictures=pictures(folder, figures, [figure.CAPTION for figure in figures], draw_routers),
        tables=tuple(router_tables(folder)),
        sections=(Section("limits", "Limits", "Limits", tuple(kinds), tinted=True),),
        same="the same settings, versions and number of threads give the same results, but for "
        "wall times",
    )


def asked(results: RouterResults, config: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what was run, a name and a value each; what the config does not say is left out."""
    text = config.get("run", {}).get("text", {})
    facts = [
        ("parts", ", ".join(map(str, config.get("parts", _parts(results))))),
        ("routers", ", ".join(_routers(results))),
        ("capacity factors", _capacities(results)),
        ("model", _model(results, config)),
        ("training", _training(config)),
        ("seeds", _seeds(results, config)),
        *((f"text: {name}", _domain(own)) for name, own in text.get("domains", {}).items()),
        ("text in all", _split(text)),
        ("tokenizer", _tokenizer(text.get("tokenizer", {}))),
        ("held out", _held_out(config)),
        ("networks", _networks(config)),
        ("real traces", ", ".join(map(str, config.get("trace", ())))),
        ("versions", ", ".join(f"{n} {v}" for n, v in config.get("versions", {}).items())),
    ]
    return [(name, value) for name, value in facts if value]


def _title(results: RouterResults, config: dict[str, Any]) -> str:
    routers = _routers(results)
    what = f"router {routers[0]}" if len(routers) == 1 else counted(len(routers), "router")
    experts = config.get("experts", 0)
    if config.get("pretrained") or not experts:
        return what[0].upper() + what[1:]
    return f"{what[0].upper()}{what[1:]} of {experts} experts a layer"


def _parts(results: RouterResults) -> list[str]:
    return [str(part) for part in results.frame["part"].dropna().unique()]


def _routers(results: RouterResults) -> list[str]:
    if "router" in results.frame and results.frame["router"].notna().any():
        return [str(name) for name in results.frame["router"].dropna().unique()]
    layers = results.rows("layer", ("source",))
    return [str(name) for name in layers["source"].unique()] if len(layers) else []


def _capacities(results: RouterResults) -> str:
    rows = results.rows("quality", ("capacity_factor",), "pareto")
    if rows.empty:
        return ""
    factors = sorted(rows["capacity_factor"].unique(), key=lambda factor: (factor == 0, factor))
    return ", ".join(map(capacity_text, factors))


def _model(results: RouterResults, config: dict[str, Any]) -> str:
    if config.get("pretrained"):
        return f"pretrained: {config['pretrained']}"
    names = ("layers", "hidden", "heads", "experts", "top_k", "expert_hidden")
    if any(name not in config for name in names):
        return ""
    text = (
        f"decoder of {config['layers']} layers, {config['hidden']} wide, {config['heads']} heads, "
        f"{config['experts']} experts a layer {config['expert_hidden']} wide, {config['top_k']} a "
        "token (top1: 1)"
    )
    rows = results.rows("quality", (), "pareto")
    if not len(rows) or "parameters" not in rows:
        return text
    most = f"; {rows['parameters'].max():,.0f} parameters"
    return f"{text}{most}, {rows['active_parameters'].max():,.0f} of them active for a token"


def _training(config: dict[str, Any]) -> str:
    training = config.get("training", {})
    if config.get("pretrained") or "steps" not in training:
        return ""
    steps, batch, context = (training[n] for n in ("steps", "batch_sequences", "context"))
    text = f"{steps} steps of {batch} windows of {context} tokens: {steps * batch * context:,}"
    return f"{text} tokens a model (other parts: see the settings)"


def _seeds(results: RouterResults, config: dict[str, Any]) -> str:
    if "seeds" in config:
        return ", ".join(map(str, range(int(config["seeds"]))))
    if "seed" not in results.frame:
        return ""
    return ", ".join(f"{seed:g}" for seed in sorted(results.frame["seed"].dropna().unique()))


def _domain(facts: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    return (
        f"{counted(int(facts['documents']), 'document')}, {int(facts['bytes']):,} bytes, "
        f"{int(facts['tokens']):,} tokens, of {packages}, SHA-256 {facts['sha256']}"
    )


def _split(text: dict[str, Any]) -> str:
    parts = [
        f"{name} {int(own['tokens']):,} tokens of {counted(int(own['documents']), 'document')}"
        for name, own in text.get("parts", {}).items()
    ]
    return f"{listed(parts)}, whole documents each" if parts else ""


def _tokenizer(facts: dict[str, Any]) -> str:
    if not facts:
        return ""
    text = f"{facts.get('kind', '')}, {int(facts.get('vocabulary', 0)):,} tokens"
    version = facts.get("tokenizers")
    return f"{text}, tokenizers {version}" if version else text


def _held_out(config: dict[str, Any]) -> str:
    if "requests" not in config:
        return ""
    context = config.get("training", {}).get("context", "")
    return f"{config['requests']} windows of {context} tokens behind each perplexity and trace"


def _networks(config: dict[str, Any]) -> str:
    network = config.get("network", {})
    if "grid" not in network:
        return ""
    slots = f"{network['slots']} slots" if network.get("slots") else "the least exact slots"
    return (
        f"{', '.join(network['topologies'])} at iso-injection of "
        f"{float(network['bandwidth']) / 1e9:g} GB/s a device; {network['grid']} devices "
        f"({network['device']}), {slots}, experts placed by {', '.join(network['placements'])}; "
        f"{network['batches']} {network['phase']} batches of {network['batch_tokens']:,} tokens"
    )
