"""Ctrl-C ends what waits for compiled code; long texts are tokenized so, with the same ids."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from bitlens.model.text.interruptible import interruptible
from bitlens.model.text.tokenizer import _LONG
from support.random_models import byte_tokenizer


def test_it_returns_and_raises_what_the_function_does() -> None:
    assert interruptible(lambda: threading.current_thread()) is not threading.main_thread()
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 / 0)
    with ThreadPoolExecutor(1) as pool:  # no signal reaches another thread: nothing to leave behind
        inside = pool.submit(
            lambda: interruptible(threading.get_ident) == threading.get_ident()
        ).result()
    assert inside


def test_ctrl_c_ends_the_wait() -> None:
    let_go = threading.Event()

    def work() -> bool:
        signal.raise_signal(signal.SIGINT)  # as a terminal would, while the call is under way
        return let_go.wait(60)

    try:
        with pytest.raises(KeyboardInterrupt):
            interruptible(work)
    finally:
        let_go.set()


def test_long_texts_have_the_ids_of_their_parts() -> None:
    tokenizer = byte_tokenizer()
    part = "The cat sat on the mat. "
    n = _LONG // len(part) + 1
    assert tokenizer.encode(part * n) == tokenizer.encode(part) * n
