"""Groups that exchange messages: ranks of torch.distributed, or N shards of one process.

A rank of the sampler is a generator (rounds.py) that yields the bytes it sends in a round and is
resumed with everyone's, in rank order; all ranks send equally many.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

Bytes = npt.NDArray[np.uint8]
T = TypeVar("T")
Rounds = Generator[Bytes, list[Bytes], T]


class RankError(RuntimeError):
    """The ranks of a group cannot sample together: they disagree, or one of them is gone."""


class LocalGroup:
    """N ranks in this process, run in lockstep.

    Attributes:
        bytes_received: Bytes each rank has received from the others so far.
        rounds: Exchanges so far.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"size = {size}: expected at least 1 rank")
        self.bytes_received = [0] * size
        self.rounds = 0

    @property
    def size(self) -> int:
        return len(self.bytes_received)

    def run(self, ranks: Sequence[Rounds[T]]) -> list[T]:
        """Runs every rank to its end. An error of one is raised after all have had the round."""
        results: list[T] = []
        errors: list[BaseException] = []
        replies: list[Bytes] | None = None
        while not results and not errors:
            sent: list[Bytes] = []
            for rank in ranks:
                try:
                    sent.append(next(rank) if replies is None else rank.send(replies))
                except StopIteration as end:
                    results.append(end.value)
                except Exception as error:
                    errors.append(error)
            if sent:
                self._count(sent)
            replies = sent
        if errors:
            # A rank's own error says more than what the others made of it.
            raise next((e for e in errors if not isinstance(e, RankError)), errors[0])
        return results

    def _count(self, sent: list[Bytes]) -> None:
        self.rounds += 1
        total = sum(len(message) for message in sent)
        for rank, message in enumerate(sent):
            self.bytes_received[rank] += total - len(message)


class RankGroup(ABC):
    """This process's membership in a group of ranks. A subclass says how messages travel.

    Attributes:
        size: How many ranks there are.
        bytes_received: Bytes this rank has received from the others so far.
        rounds: Exchanges so far.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.bytes_received = 0
        self.rounds = 0

    @abstractmethod
    def all_gather(self, message: Bytes) -> list[Bytes]:
        """Every rank's message in rank order; all are as long.

        Raises what tells that a rank is gone.
        """

    def run(self, rank: Rounds[T]) -> T:
        """Runs this process's rank to its end. Raises what `all_gather` does."""
        try:
            message = next(rank)
            while True:
                replies = self.all_gather(message)
                self.rounds += 1
                self.bytes_received += (self.size - 1) * len(message)
                message = rank.send(replies)
        except StopIteration as end:
            result: T = end.value
            return result


class TorchGroup(RankGroup):
    """The ranks of a torch.distributed process group (gloo; messages are CPU tensors)."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        if not dist.is_initialized():
            raise RuntimeError("sampling over a group needs torch.distributed.init_process_group")
        super().__init__(dist.get_world_size(group))
        self._group = group

    def all_gather(self, message: Bytes) -> list[Bytes]:
        """Raises RankError if another rank is gone."""
        sent = torch.from_numpy(message)
        received = [torch.empty_like(sent) for _ in range(self.size)]
        try:
            dist.all_gather(received, sent, group=self._group)
        except RuntimeError as error:
            raise RankError(
                f"another rank of the sampling group is gone or late: {error}"
            ) from error
        return [reply.numpy() for reply in received]


def gather(*arrays: npt.NDArray[Any]) -> Rounds[list[npt.NDArray[Any]]]:
    """One round: every rank's arrays, each stacked along a new first axis in rank order."""
    parts = [np.ascontiguousarray(a).reshape(-1).view(np.uint8) for a in arrays]
    replies = yield np.concatenate(parts)
    everyone = np.stack(replies)
    stacked, start = [], 0
    for a in arrays:
        part = np.ascontiguousarray(everyone[:, start : start + a.nbytes])
        stacked.append(part.view(a.dtype).reshape(len(replies), *a.shape))
        start += a.nbytes
    return stacked
