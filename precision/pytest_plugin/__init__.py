"""The pytest plugin once a precision test runs; its options are in bitlens_pytest.py."""

from .precision_test import PrecisionTest
from .results import write_results

__all__ = ["PrecisionTest", "write_results"]
