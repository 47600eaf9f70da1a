"""Errors of the `tokenizers` library as errors of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def library_errors(error_of: Callable[[str], Exception]) -> Iterator[None]:
    """Raises `error_of(problem)` for whatever the `tokenizers` library raises.

    It raises bare Exception, and where it panics a class that is no Exception at all, which would
    pass every handler of a program that embeds a model.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise error_of(str(error)) from error


def tokenizer_failed(problem: str) -> ValueError:
    """Returns the error of a tokenizer that fails on a text."""
    return ValueError(f"the tokenizer failed: {problem}")
