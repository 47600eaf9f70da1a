"""One model over several ranks, bit for bit the model that one rank runs."""

from .agreement import agreement, from_rank_0
from .column_shards import ColumnShards
from .group import Group, GroupError, as_group
from .sampling_ranks import SamplingRanks
from .sharded_ops import ShardedHuggingFaceOps, ShardedOps, ShardedWeight
from .thread_group import run_in_threads
from .torchrun import launched_by_torchrun, torchrun_group

__all__ = [
    "ColumnShards",
    "Group",
    "GroupError",
    "SamplingRanks",
    "ShardedHuggingFaceOps",
    "ShardedOps",
    "ShardedWeight",
    "agreement",
    "as_group",
    "from_rank_0",
    "launched_by_torchrun",
    "run_in_threads",
    "torchrun_group",
]
