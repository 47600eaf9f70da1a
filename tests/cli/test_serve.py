"""`bitlens serve`: who may reach it, and how it ends."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from bitlens.cli.command import make_app
from typer.testing import CliRunner


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "it needs a key"),
        (["--host", "192.0.2.1"], "it needs a key"),
    ],
)
def test_others_need_a_key(options: list[str], message: str) -> None:
    found = CliRunner().invoke(make_app(["serve"]), ["serve", "smollm2-135m-instruct", *options])
    assert message in str(found.exception)


def test_a_file_without_keys(tmp_path: Path, smollm2_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("\n \n")
    found = CliRunner().invoke(
        make_app(["serve"]), ["serve", str(smollm2_path), "--api-key-file", str(keys)]
    )
    assert "holds no key" in str(found.exception)


def test_sigterm_lets_what_is_under_way_end(smollm2_path: Path) -> None:
    command = [sys.executable, "-m", "bitlens", "serve", str(smollm2_path), "--name", "m"]
    command += ["--long-context", "10000", "--cache-bytes", str(256 << 20)]
    with subprocess.Popen([*command, "--port", "0"], stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        pools = r"\(short: 8,192 tokens, bl_\w{32}, long: 16,384 tokens, bl_\w{32}\)"
        said = re.fullmatch(
            rf"serving m on (http://127\.0\.0\.1:\d+) {pools}\n", run.stderr.readline()
        )
        assert said is not None  # it listens already: who connects waits for an answer
        url = said[1]
        body = {"model": "m", "prompt": "Once", "max_tokens": 40, "stream": True, "temperature": 0}
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            run.send_signal(signal.SIGTERM)
            rest = list(lines)
        assert rest[-2:] == ["data: [DONE]", ""]
        # uvicorn ends by the signal itself once all answers are out.
        assert run.wait(timeout=60) == -signal.SIGTERM
