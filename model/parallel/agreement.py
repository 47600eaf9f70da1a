"""Steps that all ranks must take alike: what they are about is compared before anyone goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

from .group import Group, GroupError

_DIGEST = 8
_MAX_TOPICS = 6
_RAISED = bytes(_DIGEST)


def raw_bytes(x: torch.Tensor) -> memoryview:
    """The bits of a tensor, to be hashed."""
    buffer: Any = x.contiguous().flatten().view(torch.uint8).numpy()
    return memoryview(buffer)


class Statement:
    """One rank's statement about a step, topic by topic."""

    def __init__(self, topics: tuple[str, ...]) -> None:
        self._hashes = {topic: hashlib.blake2b(digest_size=_DIGEST) for topic in topics}

    def say(self, topic: str, *values: Any) -> None:
        """Adds tensors (their bits, shape and dtype), bytes or plain data under a topic."""
        if not self._hashes:
            return
        for value in values:
            if isinstance(value, torch.Tensor):
                self._hashes[topic].update(f"{value.dtype}{list(value.shape)}".encode())
                value = raw_bytes(value.detach())
            elif not isinstance(value, bytes):
                value = f"{value!r};".encode()
            self._hashes[topic].update(value)

    def digest(self) -> bytes:
        return b"".join(hash.digest() for hash in self._hashes.values())


@contextmanager
def agreement(group: Group | None, step: str, *topics: str) -> Iterator[Statement]:
    """A step of the program; at its end every rank must have said the same on every topic.

    A rank that raises inside tells the others, so that nobody waits for it. Without a group nothing
    is compared.

    Raises GroupError, on every rank, if the ranks differ or one of them raised; the one that did
    raises its own error.
    """
    if group is None:
        yield Statement(())
        return
    assert len(topics) <= _MAX_TOPICS
    statement = Statement(topics)
    name = hashlib.blake2b(step.encode(), digest_size=_DIGEST).digest()
    try:
        yield statement
    except GroupError:
        raise  # the others have it too
    except Exception:
        with suppress(GroupError):
            _gather(group, _RAISED)
        raise
    said = _gather(group, name + statement.digest())
    here = f"rank {group.rank} of {group.size}, {step}"
    raised = [r for r, other in enumerate(said) if other[:_DIGEST] == _RAISED]
    if raised:
        raise GroupError(f"{here}: rank {raised[0]} raised an error; see its own message")
    apart = [r for r, other in enumerate(said) if other[:_DIGEST] != said[0][:_DIGEST]]
    if apart:
        raise GroupError(f"{here}: the ranks are at different steps of the program")
    for i, topic in enumerate(topics):
        part = slice((i + 1) * _DIGEST, (i + 2) * _DIGEST)
        others = [str(r) for r, other in enumerate(said) if other[part] != said[0][part]]
        if others:
            raise GroupError(
                f"{here}: the ranks differ in {topic}: rank {', '.join(others)} from rank 0"
            )


def _gather(group: Group, payload: bytes) -> list[bytes]:
    """Every rank's payload, padded to one length: what is compared may differ in nothing else."""
    whole = payload.ljust(_DIGEST * (1 + _MAX_TOPICS), b"\0")
    gathered = group.all_gather(torch.frombuffer(bytearray(whole), dtype=torch.uint8))
    return [bytes(part.tolist()) for part in gathered]


def from_rank_0(group: Group | None, value: bytes) -> bytes:
    """Rank 0's value on every rank; what the others pass is ignored."""
    if group is None:
        return value
    lengths = group.all_gather(torch.tensor([len(value)], device="cpu"))
    longest = max(int(length) for length in lengths)
    padded = torch.frombuffer(bytearray(value.ljust(longest + 1, b"\0")), dtype=torch.uint8)
    return bytes(group.all_gather(padded)[0][: int(lengths[0])].tolist())
