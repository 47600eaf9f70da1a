"""What child processes run, and the hash by which their bits are compared."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence

import bitlens
import pytest
import torch
from invariance.subjects import Seen, Views, draw_tokens, dtypes_of, small

pytest_ignore_fork = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)
TIMEOUT = 120


def digest(seen: Seen) -> str:
    """One hash of names, shapes and bits."""
    total = hashlib.sha256()
    for name in sorted(seen):
        x = seen[name].contiguous()
        total.update(f"{name} {x.dtype} {list(x.shape)}".encode())
        total.update(x.view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def in_fork(run: Callable[[], str]) -> str:
    """The string a forked child computes; a child that hangs is ended, and only that child."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = run()
        except BaseException as problem:  # nothing may escape into pytest's copy
            answer = repr(problem)
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    timer = threading.Timer(TIMEOUT, os.kill, (child, 9))
    timer.start()
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    timer.cancel()
    os.waitpid(child, 0)
    return answer or "the child died or hung"


def answer_in_pool(subject: str) -> tuple[int, str]:
    model = small(subject, "bf16")
    return os.getpid(), digest(Views(model)(draw_tokens(model, 30)[None])[0])


def answer_process(subjects: Sequence[str]) -> None:
    """The other side of `test_second_process`: every model's hash as JSON."""
    torch.set_num_threads(1)
    answers = {
        f"{subject}-{dtype}": digest(Views(m)(draw_tokens(m, 30)[None])[0])
        for subject in subjects
        for dtype in dtypes_of(subject)
        for m in [small(subject, dtype)]
    }
    print(json.dumps({"isa": bitlens.isa(), "pid": os.getpid(), "answers": answers}))
