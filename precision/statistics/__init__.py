"""Statistics of two runs over the same prompts: intervals, tests, power, evidence over time."""

from .binomial import Interval, clopper_pearson, upper_bound
from .clustered import Estimate, clustered_mean, clustered_proportion
from .conformal import MarginThreshold, calibrate_margin
from .equivalence import Equivalence, EquivalencePlan
from .evalues import EProcess, confidence_sequence
from .exchange import exchange_test
from .flips import FlipSummary, PairedRuns, mcnemar
from .kl import kl_divergence
from .paired import (
    items_for_paired_difference,
    items_for_unpaired_difference,
    power_of_paired_difference,
)
from .power import (
    power_of_mean,
    power_of_rate,
    prompts_for_mean,
    prompts_for_rate,
    prompts_to_see_an_event,
)

__all__ = [
    "EProcess",
    "Equivalence",
    "EquivalencePlan",
    "Estimate",
    "FlipSummary",
    "Interval",
    "MarginThreshold",
    "PairedRuns",
    "calibrate_margin",
    "clopper_pearson",
    "clustered_mean",
    "clustered_proportion",
    "confidence_sequence",
    "exchange_test",
    "items_for_paired_difference",
    "items_for_unpaired_difference",
    "kl_divergence",
    "mcnemar",
    "power_of_mean",
    "power_of_paired_difference",
    "power_of_rate",
    "prompts_for_mean",
    "prompts_for_rate",
    "prompts_to_see_an_event",
    "upper_bound",
]
