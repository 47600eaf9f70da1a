"""`bitlens serve`: who may reach it, and how it ends."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import uvicorn
from bitlens.cli.command import make_app
from bitlens.interp.monitors import read_trail
from bitlens.model.serving import Request
from support.random_models import byte_tokenizer, random_model
from support.random_probes import random_probe
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


def test_a_trail_needs_a_probe(tmp_path: Path) -> None:
    options = ["smollm2-135m-instruct", "--trail", str(tmp_path / "trail.jsonl")]
    found = CliRunner().invoke(make_app(["serve"]), ["serve", *options])
    assert "give --probe" in str(found.exception)


@pytest.mark.parametrize(("option", "reason"), [("--stop", "alarm"), ("--flag", "length")])
def test_probes_watch_every_request_and_a_trail_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, reason: str
) -> None:
    model = random_model("llama", tokenizer=byte_tokenizer())
    probe = random_probe(model, "blocks.1.hook_resid_post")
    probe.threshold_ = -1e9
    probe.save(tmp_path / "mine")
    apps = []
    monkeypatch.setattr("bitlens.cli.serve.load_model", lambda *args, **options: model)
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: apps.append(self.config.app))
    trail = tmp_path / "trail.jsonl"
    options = [str(tmp_path), "--port", "0", option, "--probe", str(tmp_path / "mine")]
    found = CliRunner().invoke(
        make_app(["serve"]), ["serve", *options, "--trail", str(trail)], catch_exceptions=False
    )
    assert found.exit_code == 0
    service = apps[0].state.service

    async def ask() -> str:
        answer = await service.submit(Request([1, 2, 3], max_new_tokens=2))
        while service.router.step():
            pass
        assert answer.finished()[0].finish_reason == reason
        identity: str = answer.id
        return identity

    identity = asyncio.run(ask())
    (line,) = read_trail(trail)
    assert (line["request"], line["finish_reason"]) == (identity, reason)
    assert [alarm["monitor"] for alarm in line["alarms"]] == ["mine"]
    service.router.close()


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
