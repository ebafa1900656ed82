"""Load skew of real models' routers as others measured it: facts to hold trained routers against.

Figures are means over layers unless said, as (least, largest) where several are published.
"""

from __future__ import annotations

from dataclasses import dataclass

Range = tuple[float, float]
UNKNOWN: Range = (float("nan"), float("nan"))


@dataclass(frozen=True)
class PublishedLoad:
    """The load skew of one model's routers."""

    model: str
    experts: int  # a layer
    top_k: int
    gini: Range
    load_cv: Range  # standard deviation over mean
    max_over_mean: Range
    source: str


PUBLISHED: tuple[PublishedLoad, ...] = (
    PublishedLoad(
        "DeepSeek-V3",
        256,
        8,
        gini=(0.33, 0.45),
        load_cv=(0.75, 1.07),
        max_over_mean=(5.6, 8.1),
        source="expert loads of its 58 MoE layers",
    ),
    PublishedLoad(
        "DeepSeek-V2-Lite",
        64,
        6,
        gini=(0.27, 0.27),
        load_cv=(0.51, 0.51),
        max_over_mean=(2.7, 2.7),
        source="routing of 151 requests in four domains (deepseek-ai/ESFT)",
    ),
    PublishedLoad(
        "GPT-OSS-20B",
        32,
        4,
        gini=(0.40, 0.40),
        load_cv=(0.71, 0.71),
        max_over_mean=(2.6, 2.6),
        source="routing of 487 outputs (AmanPriyanshu/GPT-OSS-MoE-ExpertFingerprinting)",
    ),
    PublishedLoad(
        "OLMoE",
        64,
        8,
        gini=(0.23, 0.23),
        load_cv=(0.45, 0.45),
        max_over_mean=(2.5, 2.5),
        source="expert loads of its 16 layers",
    ),
    PublishedLoad(
        "Mixtral-8x7B",
        8,
        2,
        gini=(0.08, 0.15),
        load_cv=(0.14, 0.28),
        max_over_mean=(1.2, 1.45),
        source="expert loads of its 32 layers",
    ),
    PublishedLoad(
        "switch-base-8",
        8,
        1,
        gini=(0.416, 0.744),  # average and largest
        load_cv=UNKNOWN,
        max_over_mean=UNKNOWN,
        source="study on all-to-all communication for MoE (2025): average and largest",
    ),
)
