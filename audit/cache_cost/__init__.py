"""The cost of keeping prompts, and the saving: prices as data, and a trace replayed under them."""

from .measure import FirstTokens, measure_first_tokens
from .prices import Prices, read_prices, share_saved
from .replay import Replay, Served, replay
from .trace import TracedRequest, read_trace

__all__ = [
    "FirstTokens",
    "Prices",
    "Replay",
    "Served",
    "TracedRequest",
    "measure_first_tokens",
    "read_prices",
    "read_trace",
    "replay",
    "share_saved",
]
