"""Certificates of probes: the bound of their arithmetic, decisions that cannot have flipped in
another precision, and a margin for serving."""

from .certify import certify_probe, store_certificate
from .decisions import Decisions, certify_rows, certify_scores
from .margin import calibrate_margin
from .recorded import RecordedScores, record_scores

__all__ = [
    "Decisions",
    "RecordedScores",
    "calibrate_margin",
    "certify_probe",
    "certify_rows",
    "certify_scores",
    "record_scores",
    "store_certificate",
]
