"""Surroundings of a run that must not move a bit: a GPU or the CPU, threads, instruction set,
flush-to-zero, the calling thread, a fork, another process.

Functions as in invariance.py: they vary, compare, and return the evidence that they did.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ... import _core
from ...model.load import load
from ...model.ops.cuda.ops import CudaOps
from .observation import Tally, cut, observe
from .variations import Subject

THREADS = (1, 2, 4)
FORK_SECONDS = 300


def on_cpu(subject: Subject, tally: Tally) -> str:
    """Compares a model on a GPU with the same on the CPU."""
    ops = subject.model.ops
    assert isinstance(ops, CudaOps)
    before = sum(ops.kernels.library.launches().values())
    subject.first(tally)
    launched = sum(ops.kernels.library.launches().values()) - before
    if launched == 0:
        raise RuntimeError(f"no kernel was launched on {subject.device}")
    subject.first(tally, load(subject.source, dtype=subject.dtype))
    return f"{launched:,} launches on {subject.device}, and {_core.isa()} kernels"


def threads(subject: Subject, tally: Tally) -> str:
    for n in THREADS:
        _core.set_num_threads(n)
        if _core.get_num_threads() != n:
            raise RuntimeError(f"asked for {n} threads, have {_core.get_num_threads()}")
        subject.first(tally)
    return "thread count read back each time"


def isa(subject: Subject, tally: Tally) -> str:
    ran = []
    for name in _core.available_isas():
        # Without FMA instructions a token takes seconds.
        n = subject.scope.generic_tokens if name == "generic" else subject.chunked_BP.shape[1]
        tokens_BP = subject.chunked_BP[:, :n]
        expected = cut(subject.prefill, 0, tokens_BP.shape[1])
        _core.set_isa(name)
        for names in subject.readings:
            tally.compare(observe(subject.model, tokens_BP, names, tally=tally)[0], expected)
        ran.append(f"{_core.isa()} {tokens_BP.shape[1]} tokens")
    return ", ".join(ran)


def flush_denormal(subject: Subject, tally: Tally) -> str:
    evidence = _flush_to_zero()
    subject.first(tally)
    torch.set_flush_denormal(False)
    subject.first(tally)
    return evidence


def foreign_thread(subject: Subject, tally: Tally) -> str:
    def run() -> str:
        evidence = _flush_to_zero()
        subject.first(tally)
        return f"thread {threading.current_thread().name}, {evidence}"

    return _in_thread(run)


def after_fork(subject: Subject, tally: Tally) -> str:
    """The child compares with the references it inherits and sends its counts home."""
    if not hasattr(os, "fork"):
        raise RuntimeError("this platform has no fork")
    subject.alone  # noqa: B018  computed before the fork, so that the child inherits it
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the point
        child = os.fork()
    if child == 0:
        _child_of_fork(subject, writer)
    os.close(writer)
    counts = json.loads(_read_all(reader, child))
    if "error" in counts:
        raise RuntimeError(f"in the child: {counts['error']}")
    tally.values += counts["values"]
    tally.different += counts["different"]
    subject.first(tally)
    return f"{counts['values']:,} values compared in the child"


def second_process(subject: Subject, tally: Tally) -> str:
    """A fresh interpreter loads the source again and answers through a safetensors file."""
    with tempfile.TemporaryDirectory() as folder:
        question, answer = (
            Path(folder) / "question.safetensors",
            Path(folder) / "answer.safetensors",
        )
        save_file({"tokens": subject.rows_BP[:1]}, question)
        order = {
            "source": subject.source, "dtype": subject.dtype, "device": subject.device,
            "names": subject.names,
        }  # fmt: skip
        code = f"import sys; from {__name__} import answer; answer(*sys.argv[1:])"
        run = subprocess.run(
            [sys.executable, "-c", code, str(question), str(answer)],
            input=json.dumps(order),
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode:
            raise RuntimeError(run.stderr.strip().splitlines()[-1])
        tally.compare(load_file(answer), subject.alone[0])
    return f"process {run.stdout.strip()} against {os.getpid()}"


def answer(question: str, answer: str) -> None:
    """The other side of `second_process`."""
    order = json.load(sys.stdin)
    model = load(order["source"], dtype=order["dtype"], device=order["device"])
    seen = observe(model, load_file(question)["tokens"], order["names"])[0]
    save_file({name: x.contiguous() for name, x in seen.items()}, answer)
    print(os.getpid())


def _flush_to_zero() -> str:
    """Switches flush-to-zero on in this thread and shows that torch now loses a subnormal."""
    if not torch.set_flush_denormal(True):
        raise RuntimeError("this CPU has no flush-to-zero mode")
    if float(torch.tensor([1e-40]).mul(1.0)) != 0.0:
        raise RuntimeError("flush-to-zero is on, yet torch kept a subnormal")
    return "torch flushed 1e-40 to 0"


def _in_thread(run: Callable[[], str]) -> str:
    outcome: list[str | Exception] = []

    def guarded() -> None:
        try:
            outcome.append(run())
        except Exception as problem:
            outcome.append(problem)

    thread = threading.Thread(target=guarded, name="foreign")
    thread.start()
    thread.join()
    (result,) = outcome
    if isinstance(result, Exception):
        raise result
    return result


def _child_of_fork(subject: Subject, writer: int) -> None:
    try:
        torch.set_num_threads(1)  # torch's own pool does not survive a fork
        tally = Tally()
        subject.first(tally)
        message = dataclasses.asdict(tally)
    except BaseException as problem:  # nothing may escape into the parent's stack
        message = {"error": repr(problem)}
    os.write(writer, json.dumps(message).encode())
    os._exit(0)


def _read_all(reader: int, child: int) -> str:
    """What the child wrote; a child that hangs is ended, and only that child."""
    timer = threading.Timer(FORK_SECONDS, os.kill, (child, 9))
    timer.start()
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    timer.cancel()
    os.waitpid(child, 0)
    return text or json.dumps({"error": f"the child died or ran over {FORK_SECONDS} s"})
