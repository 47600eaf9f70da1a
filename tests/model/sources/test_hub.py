"""Models on the hub: what is fetched, what is not, and what each failure says.

The hub is a server in this process (tests/support/local_hub.py).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bitlens
import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from bitlens.model.sources import FetchError, locate, open_checkpoint
from bitlens.model.sources import hub as hub_module
from bitlens.model.sources.hub import HubModel
from bitlens.model.weights.checkpoint import CheckpointError
from support.command_line import command_runner
from support.gguf_writer import LLAMA_METADATA, llama_tensors, write_llama, write_shards
from support.local_hub import (
    LocalHub,
    Repository,
    hub_environment,
    local_hub,
    repository_of,
    use_hub,
)
from support.tiny_llama import write_tiny_llama

TOKENS = torch.arange(20)[None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def hub(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A hub with the model org/tiny, and an empty cache."""
    monkeypatch.setattr(hub_module, "_fetched", {})
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with local_hub({"org/tiny": repository_of(folder)}) as running:
        use_hub(monkeypatch, running.url, cache)
        yield running


def commit(hub: LocalHub, name: str = "org/tiny") -> str:
    return hub.repositories[name].branches["main"]


def files(hub: LocalHub, name: str = "org/tiny") -> dict[str, bytes]:
    return hub.repositories[name].commits[commit(hub, name)]


def test_bits_are_those_of_the_directory(hub: LocalHub, folder: Path) -> None:
    here, there = bitlens.load(folder), bitlens.load("org/tiny")
    assert there.name == f"org/tiny@{commit(hub)}"
    assert here.config == there.config
    assert torch.equal(here(TOKENS).view(torch.int32), there(TOKENS).view(torch.int32))


def test_only_what_is_read_is_downloaded(hub: LocalHub) -> None:
    wanted = set(files(hub))
    files(hub).update(
        {
            "pytorch_model.bin": b"pickle",
            "consolidated.safetensors": b"the weights once more",
            "original/model.safetensors": b"and once more",
            "README.md": b"words",
            "tokenizer_config.json": b"{}",
        }
    )
    bitlens.load("org/tiny")
    assert set(hub.downloads()) == wanted | {"tokenizer_config.json"}
    assert "model.safetensors" in wanted


def test_what_is_cached_is_not_downloaded_again(
    hub: LocalHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bitlens.load("org/tiny")
    before = len(hub.downloads())
    for _ in range(2):
        monkeypatch.setattr(hub_module, "_fetched", {})
        bitlens.load("org/tiny")
        assert len(hub.downloads()) == before
        hub.down = True  # the cache answers for a hub that does not
    hub.requests.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for source in ("org/tiny", f"org/tiny@{commit(hub)}"):
        monkeypatch.setattr(hub_module, "_fetched", {})
        assert bitlens.load(source).name == f"org/tiny@{commit(hub)}"
    assert hub.requests == []


def test_a_commit_fetched_by_this_process_is_not_asked_for_again(hub: LocalHub) -> None:
    found = locate("org/tiny")
    hub.requests.clear()
    assert found.name is not None
    assert locate(found.name) == found
    assert hub.requests == []
    locate("org/tiny")
    assert hub.requests != []


def test_revisions(hub: LocalHub, folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    repository = repository_of(folder, other)
    old = next(iter(repository.commits))
    repository.branches |= {"v1": old, "refs/pr/2": old}
    hub.repositories["org/tiny"] = repository
    assert bitlens.load("org/tiny").config.eps == 0.5
    for source in (f"org/tiny@{old}", "org/tiny@v1", "org/tiny@refs/pr/2"):
        model = bitlens.load(source)
        assert (model.config.eps, model.name) == (1e-6, f"org/tiny@{old}")
    assert bitlens.load("org/tiny", revision="v1").config.eps == 1e-6
    assert bitlens.load("org/tiny@v1", revision="v1").config.eps == 1e-6
    with pytest.raises(ValueError, match="give one of them"):
        bitlens.load("org/tiny@v1", revision="main")
    with pytest.raises(FileNotFoundError, match="no branch, tag or commit 'v9'"):
        bitlens.load("org/tiny", revision="v9")
    with pytest.raises(ValueError, match="only models on the hub"):
        bitlens.load(folder, revision="v1")


def test_shards_come_from_the_index(hub: LocalHub, tmp_path: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(locate("org/tiny").path)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="40KB")
    hub.repositories["org/sharded"] = repository_of(tmp_path / "sharded")
    shards = [name for name in files(hub, "org/sharded") if name.endswith(".safetensors")]
    assert len(shards) > 2
    files(hub, "org/sharded")["other.safetensors"] = b"not in the index"
    hub.requests.clear()
    found = bitlens.load("org/sharded")(TOKENS)
    assert torch.equal(found, bitlens.load("org/tiny")(TOKENS))
    assert set(shards) <= set(hub.downloads())
    assert "other.safetensors" not in hub.downloads()


def test_a_single_file_wins_over_an_index(hub: LocalHub, tmp_path: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(locate("org/tiny").path)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(2)
    model.save_pretrained(tmp_path / "both", max_shard_size="40KB")
    hub.repositories["org/both"] = repository_of(tmp_path / "both")
    shards = [name for name in files(hub, "org/both") if name.endswith(".safetensors")]
    files(hub, "org/both")["model.safetensors"] = files(hub)["model.safetensors"]
    hub.requests.clear()
    found = bitlens.load("org/both")(TOKENS)
    assert torch.equal(found, bitlens.load("org/tiny")(TOKENS))
    assert not set(shards) & set(hub.downloads())
    theirs = transformers.AutoModelForCausalLM.from_pretrained("org/both")
    ours = model.model.embed_tokens.weight / 2
    assert torch.equal(theirs.model.embed_tokens.weight, ours)


@pytest.mark.parametrize(
    "shard", ["../../../secret.safetensors", "a/b.safetensors", "..", "pytorch_model.bin"]
)
def test_an_index_that_names_anything_but_safetensors_beside_it_is_refused(
    hub: LocalHub, shard: str
) -> None:
    index = {"weight_map": {"model.norm.weight": shard}}
    files(hub)["model.safetensors.index.json"] = json.dumps(index).encode()
    files(hub)["pytorch_model.bin"] = b"pickle"
    del files(hub)["model.safetensors"]
    with pytest.raises(CheckpointError, match=r"is not a plain file name ending in \.safetensors"):
        bitlens.load("org/tiny")
    assert not {"model.safetensors", "pytorch_model.bin"} & set(hub.downloads())


def test_what_is_here_wins(
    hub: LocalHub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path / "org" / "tiny")
    monkeypatch.chdir(tmp_path)
    assert bitlens.load("org/tiny").name == "org/tiny"
    assert hub.requests == []


def test_an_unsupported_model_is_refused_before_its_weights(hub: LocalHub) -> None:
    config = json.loads(files(hub)["config.json"])
    files(hub)["config.json"] = json.dumps(config | {"model_type": "mixtral"}).encode()
    with pytest.raises(CheckpointError, match="model_type = 'mixtral': supported are"):
        bitlens.load("org/tiny")
    assert "config.json" in hub.downloads()
    assert "model.safetensors" not in hub.downloads()


def test_pickles_are_neither_downloaded_nor_read(hub: LocalHub) -> None:
    files(hub)["pytorch_model.bin"] = files(hub).pop("model.safetensors")
    with pytest.raises(CheckpointError, match=r"org/tiny.*pytorch_model\.bin is a pickle.*Convert"):
        bitlens.load("org/tiny")
    assert "pytorch_model.bin" not in hub.downloads()


def test_other_repositories_say_what_they_hold(hub: LocalHub) -> None:
    hub.repositories["org/data"] = Repository({"a" * 40: {"train.csv": b""}}, {"main": "a" * 40})
    with pytest.raises(CheckpointError, match=r"org/data: no config\.json; there is train\.csv"):
        bitlens.load("org/data")


# Refusals and broken lines


def test_what_is_not_there(hub: LocalHub) -> None:
    with pytest.raises(FileNotFoundError, match=r"org/none: neither a file.*HF_TOKEN"):
        bitlens.load("org/none")


def test_a_gated_model_needs_its_token(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["org/tiny"].gated = "hf_secret"
    with pytest.raises(FetchError, match=r"gated.*/org/tiny.*HF_TOKEN"):
        bitlens.load("org/tiny")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    bitlens.load("org/tiny")
    assert hub.tokens == {"hf_secret"}


def test_a_hub_that_fails(hub: LocalHub, cache: Path) -> None:
    hub.down = True
    with pytest.raises(FetchError, match=r"org/tiny: not in the cache .* cannot be reached"):
        bitlens.load("org/tiny")
    assert not list(cache.rglob("*.safetensors"))


def test_no_network(hub: LocalHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, "http://127.0.0.1:9", cache)  # discard: nobody listens
    with pytest.raises(FetchError, match=r"cannot be reached \(HF_ENDPOINT names another\)"):
        bitlens.load("org/tiny")


def test_a_gguf_file_of_a_hub_that_fails_is_refused_at_once(hub: LocalHub) -> None:
    """Without the library's retries, half a minute of them, as other models are."""
    hub.down = True
    with pytest.raises(FetchError, match=r"org/tiny:Q4_0: not in the cache .* cannot be reached"):
        locate("org/tiny:Q4_0")
    assert len(hub.requests) == 2


def test_offline(hub: LocalHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, hub.url, cache, offline=True)
    for source in ("org/tiny", "org/tiny:Q4_K_M"):
        with pytest.raises(FileNotFoundError, match="HF_HUB_OFFLINE is set: unset it"):
            bitlens.load(source)
    assert hub.requests == []


def test_a_cache_that_lost_the_weights(
    hub: LocalHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = locate("org/tiny").path
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(hub_module, "_fetched", {})
    use_hub(monkeypatch, hub.url, cache, offline=True)
    with pytest.raises(FileNotFoundError, match="nor, whole, in the hub's cache"):
        bitlens.load("org/tiny")
    # Older libraries return a folder that is not whole.
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    with pytest.raises(
        CheckpointError, match=r"no model\.safetensors in the cache.*HF_HUB_OFFLINE"
    ):
        bitlens.load("org/tiny")


def test_a_download_that_ends_early_loads_nothing_and_goes_on_later(
    hub: LocalHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time", SimpleNamespace(sleep=lambda s: None))
    hub.repositories["org/tiny"].cut = {"model.safetensors"}
    with pytest.raises(FetchError, match=r"org/tiny.*: the download failed and will continue"):
        bitlens.load("org/tiny")
    assert not list(cache.rglob("*.safetensors"))
    use_hub(monkeypatch, hub.url, cache, offline=True)
    with pytest.raises(FileNotFoundError, match="nor, whole, in the hub's cache"):
        bitlens.load("org/tiny")
    use_hub(monkeypatch, hub.url, cache)
    hub.repositories["org/tiny"].cut = set()
    assert torch.isfinite(bitlens.load("org/tiny")(TOKENS)).all()


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FileNotFoundError, match=r"org/tiny: no such.*pip install 'bitlens\[hub\]'"):
        bitlens.load("org/tiny")


# GGUF files


@pytest.fixture
def ggufs(hub: LocalHub, tmp_path: Path) -> LocalHub:
    """The hub with org/ggufs, too: two quantisations by name, a pair, and a projector."""
    body = write_llama(tmp_path / "model.gguf").read_bytes()
    names = ("m-Q4_0.gguf", "m.q8_0.gguf", "a-BF16.gguf", "b-BF16.gguf", "mmproj-Q4_0.gguf")
    hub.repositories["org/ggufs"] = Repository(
        {"b" * 40: dict.fromkeys(names, body)}, {"main": "b" * 40}
    )
    return hub


@pytest.mark.parametrize(
    ("tag", "file"),
    [
        ("Q4_0", "m-Q4_0.gguf"),
        ("q4_0", "m-Q4_0.gguf"),
        ("Q8_0", "m.q8_0.gguf"),
        ("b-BF16.gguf", "b-BF16.gguf"),
    ],
)
def test_a_gguf_file_of_a_repository(
    ggufs: LocalHub, tag: str, file: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = open_checkpoint(f"org/ggufs:{tag}")
    assert checkpoint.name == f"org/ggufs@{'b' * 40}:{tag}"
    assert ggufs.downloads() == [file]
    monkeypatch.setattr(hub_module, "_fetched", {})
    use_hub(monkeypatch, ggufs.url, cache, offline=True)
    assert locate(f"org/ggufs:{tag}").path.name == file


def test_gguf_files_that_cannot_be_told_apart_are_not_downloaded(ggufs: LocalHub) -> None:
    with pytest.raises(FileNotFoundError, match=r"a-BF16\.gguf, b-BF16\.gguf could be meant"):
        open_checkpoint("org/ggufs:BF16")
    for tag in ("Q5_K", "4_0", "16", "none.gguf"):
        with pytest.raises(FileNotFoundError, match=r"no GGUF file.*org/ggufs:m-Q4_0\.gguf"):
            open_checkpoint(f"org/ggufs:{tag}")
    with pytest.raises(CheckpointError, match=r"no config\.json; there is org/ggufs:m-Q4_0\.gguf"):
        open_checkpoint("org/ggufs")
    assert ggufs.downloads() == []


def test_parts_of_a_gguf_model_come_together(ggufs: LocalHub) -> None:
    parts = [f"UD/m-Q2_K-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    repository = ggufs.repositories["org/ggufs"]
    repository.commits["b" * 40].update({part: part.encode() for part in parts})
    for tag in ("Q2_K", parts[1]):
        assert locate(f"org/ggufs:{tag}").path.as_posix().endswith(parts[0])
    assert sorted(ggufs.downloads()) == parts


def test_a_model_in_several_gguf_files(hub: LocalHub, tmp_path: Path) -> None:
    """Links in the cache beside each other, as shards must lie."""
    whole = write_llama(tmp_path / "whole.gguf")
    (tmp_path / "shards").mkdir()
    tensors = llama_tensors(np.random.default_rng(0))
    last = write_shards(tmp_path / "shards", LLAMA_METADATA, tensors, 2)[-1]
    hub.repositories["org/ggufs"] = repository_of(tmp_path / "shards")
    tokens_BP = TOKENS % bitlens.load(whole).config.d_vocab
    expected = bitlens.load(whole)(tokens_BP)
    assert torch.equal(bitlens.load(f"org/ggufs:{last.name}")(tokens_BP), expected)


# Names


def test_what_can_be_a_model_on_the_hub() -> None:
    name = "Org-1/Model_2.5"
    assert HubModel.parse(name) == HubModel(name)
    assert HubModel.parse(f"{name}@v1:Q4_K_M") == HubModel(name, "v1", "Q4_K_M")
    assert HubModel.parse(f"{name}@refs/pr/3") == HubModel(name, "refs/pr/3")
    for other in (
        "smollm2",
        "a/b/c",
        "/a/b",
        "./a",
        "../a",
        "~/a",
        "a/b.gguf",
        "a b/c",
        "a/",
        "C:\\a",
    ):
        assert HubModel.parse(other) is None


def test_names_that_the_hub_does_not_take(hub: LocalHub) -> None:
    for source in ("org/a--b", "org/-a", f"org/{'a' * 100}"):
        with pytest.raises(FileNotFoundError, match=r"no such file.* and no id on the hub: "):
            bitlens.load(source)
    assert hub.requests == []


# The environment


def test_the_command_line_obeys_the_environment(hub: LocalHub, cache: Path) -> None:
    def run(*arguments: str, **settings: str) -> Any:
        environment = os.environ | hub_environment(hub.url, cache) | settings
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        command = [sys.executable, "-m", "bitlens", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    fetched = run("fetch", "org/tiny", "--json")
    assert fetched.returncode == 0, fetched.stderr
    answer = json.loads(fetched.stdout)
    assert answer["model"] == f"org/tiny@{commit(hub)}"
    assert Path(answer["path"]).is_relative_to(cache)
    assert "Fetching" in fetched.stderr
    offline = run(
        "info", "org/tiny", "--json", HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9"
    )
    assert offline.returncode == 0, offline.stderr
    assert json.loads(offline.stdout)["model"] == answer["model"]


def test_commands_take_ids_and_name_the_commit(
    hub: LocalHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = command_runner(capsys, monkeypatch)
    pinned = f"org/tiny@{commit(hub)}"
    for command in ("info", "context-cost", "fetch"):
        code, out, _ = run(command, "org/tiny", "--json")
        assert (code, json.loads(out)["model"]) == (0, pinned)
    code, _, err = run("generate", "org/none", "-p", "x")
    assert code == 2
    assert err.strip().startswith("bitlens: org/none: neither")
