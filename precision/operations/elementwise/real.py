"""Sums, products, sigmoid and tanh over the real numbers."""

from __future__ import annotations

import torch

from ...reals.algebra import Algebra, Array

Tensor = torch.Tensor


def add(over: Algebra, a: Tensor, b: Tensor) -> Array:
    return over.lift(a) + over.lift(b)


def mul(over: Algebra, a: Tensor, b: Tensor) -> Array:
    return over.lift(a) * over.lift(b)


def sigmoid(over: Algebra, x: Tensor) -> Array:
    return over.lift(1.0) / (over.exp(-over.lift(x)) + 1.0)


def tanh(over: Algebra, x: Tensor) -> Array:
    return over.tanh(over.lift(x))
