"""`bitlens tools-eval`: a table of shares, JSON, and a file that goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.command_line import Run, command_runner
from support.speaking_llama import write_speaking_llama

TEMPLATE = "{% for m in messages %}{{ m.role }}\n{{ m.content }}\n{% endfor %}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_speaking_llama(
        tmp_path_factory.mktemp("model"), max_position_embeddings=4096, eos_token_id=0
    )
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return folder


@pytest.fixture
def tools_eval(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return command_runner(capsys, monkeypatch, "tools-eval")


ASKED = ("--category", "simple", "--category", "irrelevance", "--limit", "1")


@pytest.mark.filterwarnings("ignore:.*roles can be forged")
def test_shares_as_a_table_and_as_json(
    tools_eval: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "answers.jsonl"
    command = (model, *ASKED, "--max-new-tokens", "8", "-o", file)
    code, out, err = tools_eval(*command)
    assert code == 0, err
    assert "95%" in out
    assert "simple, wrong: no call 1" in out
    written = file.read_text()
    code, out, _ = tools_eval(*command, "--json")
    assert code == 0
    found = json.loads(out)["categories"]
    assert [each["category"] for each in found] == ["simple", "irrelevance"]
    assert [(each["n"], each["all_fit"]) for each in found] == [(1, True)] * 2
    assert file.read_text() == written  # nothing was asked again
    # A call that does not fit breaks the promise.
    rows = [{**json.loads(line), "finish_reason": "stop"} for line in written.splitlines()]
    rows[0]["misfit"] = "f: no x"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert tools_eval(*command)[0] == 1


def test_bad_input(tools_eval: Run, model: Path, tmp_path: Path) -> None:
    assert tools_eval(model, "--category", "parallel")[0] == 2
    code, _, err = tools_eval(model, *ASKED, "-o", tmp_path / "none" / "a.jsonl")
    assert code == 2
    assert "no directory" in err
