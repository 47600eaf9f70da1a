"""Ctrl-C, as a terminal sends it, ends what takes long within a second of the processor's time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from support.speaking_llama import write_speaking_llama

_CLOCK = os.sysconf("SC_CLK_TCK")

PATCHING = """
import sys, bitlens, torch
from bitlens.model.hooks.activation_patching import get_act_patch_attn_head_out_all_pos as patch
model = bitlens.load(sys.argv[1])
tokens = torch.arange(90)[None]
_, cache = model.run_with_cache(tokens)
print("loaded", file=sys.stderr, flush=True)
while True:
    patch(model, tokens, cache, lambda logits: logits.sum())
"""


def _cpu_seconds(pid: int) -> float:
    """Returns the time of a process so far, all its threads: a busy machine makes no difference."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK


def _interrupted(command: list[str], until: str = "loaded") -> tuple[int, float, str]:
    """Exit code, seconds that it took to end, and stderr, for a Ctrl-C after it wrote `until`."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Of a shell's background job, children would ignore Ctrl-C.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    said: list[str] = []
    too_long = threading.Timer(300, process.kill)
    too_long.start()
    try:
        for line in process.stderr:
            said.append(line)
            if until in line:
                break
        start = _cpu_seconds(process.pid)
        while _cpu_seconds(process.pid) < start + 0.3:  # into the work
            assert process.poll() is None, "".join(said)
            time.sleep(0.02)
        before = _cpu_seconds(process.pid)
        process.send_signal(signal.SIGINT)
        _, status, used = os.wait4(process.pid, 0)
        after = used.ru_utime + used.ru_stime
    finally:
        too_long.cancel()
    return os.waitstatus_to_exitcode(status), after - before, "".join(said)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speaking_llama(tmp_path_factory.mktemp("llama"), max_position_embeddings=30_000)


def test_generate(llama: Path) -> None:
    words = ["generate", str(llama), "-p", "x", "--json", "--max-new-tokens", "29000"]
    words += ["--min-new-tokens", "29000"]
    code, _, _ = _interrupted([sys.executable, "-m", "bitlens", "-v", *words])
    assert code == 130


@pytest.mark.nightly
def test_patching(llama: Path) -> None:
    code, seconds, _ = _interrupted([sys.executable, "-c", PATCHING, str(llama)])
    assert code in (-signal.SIGINT, 1)  # Python's own, a traceback
    assert seconds < 1


@pytest.mark.nightly
@pytest.mark.parametrize(
    "words",
    [
        ["generate", "{model}", "-p", "x", "--max-new-tokens=29000", "--min-new-tokens=29000"],
        ["audit", "{model}", "--n-prompts", "64", "--output", "{folder}/page.html"],
        ["verify", "{model}"],
        ["postmortem", "{model}", "--shards", "1,2,4", "--output", "{folder}/page.html"],
    ],
    ids=lambda words: words[0],
)
def test_commands(llama: Path, tmp_path: Path, words: list[str]) -> None:
    filled = [word.format(model=llama, folder=tmp_path) for word in words]
    code, seconds, said = _interrupted([sys.executable, "-m", "bitlens", "-v", *filled])
    assert code == 130, said
    assert seconds < 1


@pytest.mark.nightly
@pytest.mark.parametrize("command", ["harvest", "train"])
def test_dictionaries(llama: Path, tmp_path: Path, command: str) -> None:
    from support.training_runs import HOOK

    config, text = tmp_path / "run.toml", tmp_path / "text.txt"
    text.write_text("The cat sat on the mat and looked at the moon. " * 100_000)
    dictionary = f'architecture = "topk"\nhook_name = "{HOOK}"\nd_sae = 256\nk = 8\n'
    config.write_text(
        f'model = "{llama}"\ntext = "{text}"\n[dictionary]\n{dictionary}n_tokens = 4_000_000\n'
    )
    words = ["sae", command, str(config), "--output", str(tmp_path / "out")]
    code, seconds, said = _interrupted([sys.executable, "-m", "bitlens", "-v", *words])
    assert code == 130, said
    assert seconds < 1
