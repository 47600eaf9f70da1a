"""A GGUF model in several files: any shard opens all, and nothing else passes for one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import bitlens
import numpy as np
import pytest
import torch
from bitlens.model.sources import open_checkpoint
from bitlens.model.weights.checkpoint import CheckpointError
from gguf import GGUFWriter
from support.gguf_writer import LLAMA_METADATA, Raw, Typed, gguf_bytes, llama_tensors, write_shards

TENSORS = llama_tensors(np.random.default_rng(0), "Q8_0")


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """A model in three files."""
    return write_shards(tmp_path, LLAMA_METADATA, TENSORS, 3)


def rewrite(path: Path, number: int, replaced: Mapping[str, Any], names: list[str]) -> None:
    """Shard `number` of the three again, with other metadata or tensors."""
    metadata = {**(LLAMA_METADATA if number == 0 else {}), **split(number)}
    metadata |= replaced
    kept = {key: v for key, v in metadata.items() if v is not None}
    path.write_bytes(gguf_bytes(kept, {name: TENSORS[name] for name in names}))


def split(number: int, count: int = 3, tensors: int = len(TENSORS)) -> dict[str, Any]:
    return {
        "split.no": Typed("u16", number),
        "split.count": Typed("u16", count),
        "split.tensors.count": Typed("i32", tensors),
    }


def names_in(number: int) -> list[str]:
    return list(TENSORS)[number::3]


def test_any_shard_opens_the_whole_model(shards: list[Path], tmp_path: Path) -> None:
    whole = tmp_path / "whole.gguf"
    whole.write_bytes(gguf_bytes(LLAMA_METADATA, TENSORS))
    tokens = torch.tensor([[1, 2, 3]])
    expected = bitlens.load(whole)(tokens)
    for shard in shards:
        assert torch.equal(bitlens.load(shard)(tokens), expected)
        assert open_checkpoint(shard).name == str(shard)


def test_shards_of_the_gguf_package(tmp_path: Path) -> None:
    """Written by llama.cpp's own writer, the metadata in a first shard without tensors."""
    writer = GGUFWriter(
        tmp_path / "real.gguf", "llama", split_max_tensors=4, small_first_shard=True
    )
    for key, value in LLAMA_METADATA.items():
        if isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
    tensors = llama_tensors(np.random.default_rng(0), "F32")
    for name, raw in tensors.items():
        writer.add_tensor(name, np.frombuffer(raw.data, "<f4").reshape(raw.shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    paths = sorted(tmp_path.glob("real-*.gguf"))
    assert len(paths) == 4
    checkpoint = open_checkpoint(paths[2])
    embed = np.frombuffer(tensors["token_embd.weight"].data, "<f4").reshape(40, 64)
    assert np.array_equal(checkpoint.matrix("embed.weight").data.numpy(), embed)


@pytest.mark.parametrize("count", [0, 1])
def test_a_whole_model_needs_no_name(count: int, tmp_path: Path) -> None:
    """`llama-gguf-split --merge` keeps the first shard's metadata, with a count of 0."""
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes({**LLAMA_METADATA, **split(0, count)}, TENSORS))
    assert bitlens.load(path)(torch.tensor([[1]])).isfinite().all()


def test_a_relative_path_and_a_linked_directory(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the hub's cache lays files out: names beside each other, contents elsewhere."""
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for i, shard in enumerate(shards):
        blob = shard.rename(tmp_path / f"blob{i}")
        (snapshot / shard.name).symlink_to(blob)
    monkeypatch.chdir(snapshot)
    assert "embed.weight" in open_checkpoint(shards[1].name)


Damage = Callable[[list[Path]], None]

DAMAGED: dict[str, tuple[Damage, str]] = {
    "missing": (lambda s: s[1].unlink(), r"00002-of-00003\.gguf: this shard.*missing beside"),
    "a directory": (lambda s: (s[1].unlink(), s[1].mkdir()), "missing beside"),  # type: ignore[dict-item]
    "cut": (lambda s: os.truncate(s[2], 100), r"00003-of-00003\.gguf: 3 tensors announced"),
    "renamed": (
        lambda s: s[0].rename(s[0].with_name("model.gguf")),  # type: ignore[dict-item]
        r"shard 1 of 3, so its name must end in -00001-of-00003\.gguf.*--merge",
    ),
    "swapped": (
        lambda s: rewrite(s[1], 2, {}, names_in(2)),
        r"00002-of-00003\.gguf: split\.no = 2.*asks for 1",
    ),
    "of another count": (
        lambda s: rewrite(s[1], 1, {"split.count": Typed("u16", 4)}, names_in(1)),
        r"00002-of-00003\.gguf: split\.count = 4.*asks for 3",
    ),
    "of another total": (
        lambda s: rewrite(s[2], 2, {"split.tensors.count": Typed("i32", 7)}, names_in(2)),
        r"split\.tensors\.count = 7.*asks for 11",
    ),
    "a tensor twice": (
        lambda s: rewrite(s[2], 2, {}, [*names_in(2), names_in(0)[0]]),
        r"00003-of-00003\.gguf: tensor 'token_embd\.weight' is in model-00001-of-00003\.gguf too",
    ),
    "a tensor less": (
        lambda s: rewrite(s[2], 2, {}, names_in(2)[1:]),
        r"split\.tensors\.count = 11, but the shards hold 10 tensors",
    ),
    "of another model": (
        lambda s: rewrite(s[2], 2, {"general.architecture": "qwen2"}, names_in(2)),
        "another architecture",
    ),
    "settings in a later shard": (
        lambda s: rewrite(s[1], 1, {"llama.rope.freq_base": 5e5}, names_in(1)),
        r"metadata key 'llama\.rope\.freq_base'; only the first shard",
    ),
    "no number": (
        lambda s: rewrite(s[1], 1, {"split.no": None}, names_in(1)),
        r"split\.no = None: expected 0 or more",
    ),
    "a number that is none": (
        lambda s: rewrite(s[0], 0, {"split.count": True}, names_in(0)),
        r"split\.count = True: expected",
    ),
    "a negative total": (
        lambda s: rewrite(s[0], 0, {"split.tensors.count": Typed("i32", -1)}, names_in(0)),
        r"split\.tensors\.count = -1",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damage_is_named(shards: list[Path], damage: str) -> None:
    inflict, message = DAMAGED[damage]
    inflict(shards)
    path = shards[0] if shards[0].exists() else shards[0].with_name("model.gguf")
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(path)


def test_a_number_beyond_the_count_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model-00009-of-00003.gguf"
    path.write_bytes(gguf_bytes({**LLAMA_METADATA, **split(8)}, TENSORS))
    with pytest.raises(CheckpointError, match=r"split\.no = 8, but split\.count = 3"):
        open_checkpoint(path)


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "\n", "x-00001-of-00003.gguf"])
def test_no_metadata_leads_to_another_file(tmp_path: Path, name: str) -> None:
    """Neighbours are found by the name the user gave; what a file says only has to agree."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (path,) = write_shards(inside, {**LLAMA_METADATA, "general.name": name}, TENSORS, 3)[:1]
    for other in inside.glob("*-0000[23]-*"):
        other.rename(tmp_path / other.name)
    with pytest.raises(CheckpointError, match="missing beside"):
        open_checkpoint(path)


def test_a_shard_cut_after_opening_is_named(shards: list[Path]) -> None:
    checkpoint = open_checkpoint(shards[0])
    for shard in shards:
        os.truncate(shard, shard.stat().st_size - len(TENSORS["blk.0.ffn_up.weight"].data))
    with pytest.raises(CheckpointError, match=r"-of-00003\.gguf: tensor '.*' ends early"):
        [checkpoint.reader.read(name) for name in checkpoint.names()]


def test_every_tensor_comes_from_its_own_shard(shards: list[Path]) -> None:
    checkpoint = open_checkpoint(shards[1])
    down: Raw = TENSORS["blk.0.ffn_down.weight"]
    stored = checkpoint.matrix("blocks.0.mlp.down.weight").data
    assert stored.numpy().tobytes() == down.data
