"""The tasks of ``topomoe routers``: what one process does at a time."""

from __future__ import annotations

from dataclasses import dataclass

from topomoe.commands.routers_settings import FULL, RoutersSettings, swept_router

BASE = "base"  # a task that only trains a model for others
TUNING = "tuning"
TUNING_SEED = 1000  # of the trials: no model of another part has it


@dataclass(frozen=True)
class Task:
    """A part at one point of its grid; ``steps`` is how much progress it reports."""

    part: str
    router: str = ""
    capacity_factor: float = 0.0
    experts: int = 0
    top_k: int = 0
    seed: int = 0
    choice: str = ""  # a balance loss or an adapter variant
    learning_rate: float = 0.0  # of a trial
    balance: float = 0.0  # of a trial: weight of its balance loss, or step of its bias
    steps: int = 1

    @property
    def name(self) -> str:
        """A name that no other task of the run has, fit for a file."""
        return "-".join(
            (
                self.part,
                *(word for word in (self.router, self.choice) if word),
                f"c{self.capacity_factor:g}",
                f"e{self.experts}",
                f"k{self.top_k}",
                f"s{self.seed}",
                *((f"r{self.learning_rate:g}-b{self.balance:g}",) if self.part == TUNING else ()),
            )
        )

    @property
    def model(self) -> str:
        """The folder in models/ of the model that it is about, which tasks of parts may share."""
        if self.part in ("size", "capacity", TUNING):
            return self.name
        return f"{self.router}-c{self.capacity_factor:g}-s{self.seed}"


def tasks_of(settings: RoutersSettings) -> tuple[list[Task], list[Task], list[Task]]:
    """Return the tasks in the order of their results; those of a round need rounds before it."""
    parts = settings.parts
    first: list[Task] = []
    second = _second(settings)
    if "pareto" in parts:
        first += [
            model_task(settings, "pareto", router, factor, seed)
            for router in settings.routers
            for factor in settings.capacity_factors
            for seed in range(settings.seeds)
        ]
    there = {(task.router, task.capacity_factor, task.seed) for task in first}
    needed = dict.fromkeys(
        (task.router, task.capacity_factor, task.seed) for task in second if task.router
    )
    first += [model_task(settings, BASE, *key) for key in needed if key not in there]
    if "size" in parts:
        first += [
            model_task(
                settings,
                "size",
                router,
                settings.base_factor,
                seed,
                steps=settings.size_steps * len(settings.size_experts),
            )
            for router in settings.routers
            for seed in range(settings.seeds)
        ]
    if "capacity" in parts:
        first += [
            Task(
                "capacity",
                swept_router(top_k),
                settings.base_factor,
                experts,
                top_k,
                seed,
                steps=settings.sweep_steps + len(settings.sweep_factors),
            )
            for experts in settings.sweep_experts
            for top_k in settings.sweep_top_k
            for seed in range(settings.sweep_seeds)
        ]
    return _trials(settings) if TUNING in parts else [], first, second


def _trials(settings: RoutersSettings) -> list[Task]:
    """Return the trials of each router that is trained."""
    named = dict.fromkeys(settings.routers)
    if set(settings.parts) & {"losses", "adapters"}:
        named[settings.base_router] = None
    if "capacity" in settings.parts:
        named |= dict.fromkeys(map(swept_router, settings.sweep_top_k))
    if "assignments" in settings.parts and not settings.pretrained:
        named |= dict.fromkeys(settings.assignment_routers)
    found = []
    for router in named:
        shape = settings.shape(router, settings.base_factor)
        found += [
            Task(
                TUNING,
                router,
                settings.base_factor,
                shape.experts,
                shape.top_k,
                TUNING_SEED,
                learning_rate=rate,
                balance=balance,
                steps=settings.tune_steps,
            )
            for rate in settings.tune_rates
            for balance in balances_of(settings, router)
        ]
    return found


def balances_of(settings: RoutersSettings, router: str) -> tuple[float, ...]:
    """Return the weights of the balance loss, or steps of the bias, that a router is tried with."""
    if router == "bias-balanced":
        return settings.tune_updates
    if router in ("hash", "expert-choice") or settings.training.balance_loss == "none":
        return (0.0,)
    return settings.tune_weights


def _second(settings: RoutersSettings) -> list[Task]:
    """Return the tasks that take a trained model up."""
    found: list[Task] = []
    base = settings.base_router, settings.base_factor
    seeds = range(settings.seeds)
    if "losses" in settings.parts:
        for loss in settings.losses:
            runs = 1 if loss == "none" else len(settings.loss_weights)
            found += [
                model_task(
                    settings, "losses", *base, seed, choice=loss, steps=runs * settings.loss_steps
                )
                for seed in seeds
            ]
    if "assignments" in settings.parts:
        own = (
            [("", 0.0, 0)]
            if settings.pretrained
            else [
                (router, settings.base_factor, seed)
                for router in settings.assignment_routers
                for seed in seeds
            ]
        )
        found += [
            model_task(settings, "assignments", *key, steps=len(settings.assignments))
            for key in own
        ]
    if "adapters" in settings.parts:
        for variant in settings.adapter_variants:
            runs = 1 if variant == FULL else len(settings.adapter_ranks)
            runs *= len(settings.adapter_rates)
            found += [
                model_task(
                    settings,
                    "adapters",
                    *base,
                    seed,
                    choice=variant,
                    steps=runs * settings.adapter_steps,
                )
                for seed in seeds
            ]
    if "profile" in settings.parts:
        key = ("", 0.0, 0)
        if not settings.pretrained:
            key = (settings.routers[0], settings.capacity_factors[0], 0)
        found.append(model_task(settings, "profile", *key, steps=1))
    return found


def model_task(
    settings: RoutersSettings,
    part: str,
    router: str,
    capacity_factor: float,
    seed: int,
    choice: str = "",
    steps: int = 0,
) -> Task:
    """Return a task about a model of the settings' own experts and top-k; "": a pretrained one."""
    if not router:
        return Task(part, seed=seed, choice="pretrained", steps=steps)
    shape = settings.shape(router, capacity_factor)
    return Task(
        part,
        router,
        capacity_factor,
        shape.experts,
        shape.top_k,
        seed,
        choice,
        steps=steps or settings.training.steps,
    )
