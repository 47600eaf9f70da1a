"""Pages by the tokens that lead to them: a tree of blocks of 64 token ids."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from .page_pool import PAGE

_ID_BYTES = 4
_BLOCK = PAGE * _ID_BYTES


class Hash(Protocol):
    """A hash such as `hashlib.sha256` returns."""

    def digest(self) -> bytes: ...


Digest = Callable[[bytes], Hash]


@dataclass(eq=False, slots=True)
class Node:
    """One page of a prefix.

    Attributes:
        parent: What comes before it; None for a root, which has no page.
        tokens: Its ids, big-endian, so that bytes are ordered as ids are; 64 in a full page.
        digest: Of these and all before them.
        blocks: The full pages after it, by digest.
        ordered: All pages after it, in the order of their ids.
        attached: Whether it is in the tree.
    """

    parent: Node | None
    tokens: bytes
    digest: bytes
    page: int
    used: float = 0.0
    blocks: dict[bytes, Node] = field(default_factory=dict)
    ordered: list[Node] = field(default_factory=list)
    attached: bool = True

    @property
    def is_full(self) -> bool:
        return len(self.tokens) == _BLOCK


@dataclass(frozen=True)
class Match:
    """The longest known prefix of a prompt.

    Attributes:
        nodes: Its pages; of the last one, perhaps not all tokens.
        n_tokens: Tokens in common.
    """

    nodes: list[Node]
    n_tokens: int


class PrefixIndex:
    """Known prefixes. Pages and their references are the caller's business.

    Digests only find candidates: what they find is compared token by token.
    """

    def __init__(self, digest: Digest) -> None:
        self._digest = digest
        self._roots: dict[bytes, Node] = {}

    def root(self, key: bytes) -> Node | None:
        """Returns the root of a key, None if nothing is known under it."""
        root = self._roots.get(self._digest(key).digest())
        return root if root is not None and root.tokens == key else None

    def new_root(self, key: bytes) -> Node | None:
        """Returns the root of a key, made where there is none; None if another key has its
        digest."""
        digest = self._digest(key).digest()
        self._roots.setdefault(digest, Node(None, key, digest, -1))
        return self.root(key)

    def find(self, key: bytes, tokens: bytes) -> Match:
        """Returns the longest common prefix with any known one, to the token."""
        nodes: list[Node] = []
        root = self.root(key)
        if root is None:
            return Match(nodes, 0)
        node = root
        for start in range(0, len(tokens) - _BLOCK + 1, _BLOCK):
            block = tokens[start : start + _BLOCK]
            child = node.blocks.get(self._chained(node, block))
            if child is None or not self.holds(child, block):
                break
            nodes.append(child)
            node = child
        nearest, n = _nearest(node.ordered, tokens[len(nodes) * _BLOCK :])
        n_tokens = len(nodes) * PAGE + n
        return Match([*nodes, nearest] if nearest is not None else nodes, n_tokens)

    def holds(self, node: Node, block: bytes) -> bool:
        """Whether a node that a digest found is the one that was looked for."""
        return node.tokens == block

    def add(self, parent: Node, tokens: bytes, page: int) -> Node | None:
        """Returns the node of these tokens after `parent`: a new one with this page, or the one
        that is there.

        None where nothing was added: the page is a partial one, and another already holds its
        tokens; or another block has the same digest.
        """
        digest = self._chained(parent, tokens)
        known = parent.blocks.get(digest)
        if known is not None and len(tokens) == _BLOCK:
            return known if self.holds(known, tokens) else None
        at = bisect_left(parent.ordered, tokens, key=_tokens)
        if at < len(parent.ordered) and parent.ordered[at].tokens.startswith(tokens):
            return None
        node = Node(parent, tokens, digest, page)
        parent.ordered.insert(at, node)
        if node.is_full:
            parent.blocks[digest] = node
        return node

    def shorter(self, node: Node) -> Node | None:
        """Returns a sibling whose tokens are the beginning of a node's: it is not needed now."""
        assert node.parent is not None
        at = bisect_left(node.parent.ordered, node.tokens, key=_tokens)
        before = node.parent.ordered[at - 1] if at else None
        return before if before is not None and node.tokens.startswith(before.tokens) else None

    def remove(self, node: Node) -> None:
        """Takes a node that nothing follows out of the tree, and its root if it was the last."""
        assert node.parent is not None
        parent = node.parent
        del parent.ordered[bisect_left(parent.ordered, node.tokens, key=_tokens)]
        if node.is_full:
            del parent.blocks[node.digest]
        node.attached = False
        if parent.parent is None and not parent.ordered:
            parent.attached = False
            self._roots.pop(parent.digest, None)

    def _chained(self, parent: Node, tokens: bytes) -> bytes:
        return self._digest(parent.digest + tokens).digest()


def token_bytes(ids: Sequence[int]) -> bytes:
    """Returns token ids as a node keeps them."""
    return np.asarray(ids, dtype=">u4").tobytes()


def blocks_of(tokens: bytes, n: int) -> bytes:
    """Returns the nth block of 64 ids, or what there is of it."""
    return tokens[n * _BLOCK : (n + 1) * _BLOCK]


def _tokens(node: Node) -> bytes:
    return node.tokens


def _nearest(ordered: list[Node], tokens: bytes) -> tuple[Node | None, int]:
    """The node with the longest common beginning, and its tokens: in order, a neighbour of what
    is looked for."""
    at = bisect_left(ordered, tokens, key=_tokens)
    best, most = None, 0
    for node in ordered[max(at - 1, 0) : at + 1]:
        n = _n_common(node.tokens, tokens)
        if n > most:
            best, most = node, n
    return best, most


def _n_common(a: bytes, b: bytes) -> int:
    n = min(len(a), len(b))
    x, y = (np.frombuffer(each, dtype=">u4", count=n // _ID_BYTES) for each in (a, b))
    different = x != y
    return int(different.argmax()) if different.any() else n // _ID_BYTES
