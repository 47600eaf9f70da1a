"""Tokenizers rebuilt from GGUF metadata or a directory, and chat templates."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tokenizers
import transformers
from bitlens.model.sources import open_checkpoint
from bitlens.model.sources.gguf_tokenizer import PRE_TOKENIZERS, tokenizer_from_gguf
from bitlens.model.sources.sentencepiece_bpe import SPACE
from bitlens.model.text.chat_template import ChatTemplateError
from bitlens.model.text.tokenizer import Tokenizer
from bitlens.model.weights.checkpoint import Checkpoint, CheckpointError
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gguf_writer import LLAMA_METADATA, Typed, gguf_bytes, llama_tensors
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

CORPUS = [
    "Hello hello world, the theory of the thing isn't 1234 or 56.",
    "don't we'll THEY'RE café žluť 中文 тест 🙂🙂  two  spaces\n\nnew\tline\r\n",
] * 4
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# The expressions in Llama 3's and Qwen 2's own tokenizer.json.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")

texts = st.text(
    st.one_of(
        st.sampled_from("abehltHT 0123456789'.\n\t\ré🙂中"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=40,
)


def definition(pre: str) -> tokenizers.Tokenizer:
    """A trained byte-level BPE, described the way its model's tokenizer.json does."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    bare = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = {"llama-bpe": LLAMA3, "qwen2": QWEN2}.get(pre)
    backend = tokenizers.Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    if split:
        steps = [pre_tokenizers.Split(Regex(split), behavior="isolated"), bare]
        backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    elif pre == "smollm":
        steps = [pre_tokenizers.Digits(individual_digits=True), byte_level]
        backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    else:
        backend.pre_tokenizer = byte_level
    if pre == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def metadata_of(backend: tokenizers.Tokenizer, pre: str) -> dict[str, Any]:
    model = json.loads(backend.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array([3 if t in SPECIAL else 1 for t in tokens]),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def rebuild(metadata: dict[str, Any]) -> Tokenizer:
    tokenizer = tokenizer_from_gguf(metadata, 512, "m.gguf")
    assert tokenizer is not None
    return tokenizer


@pytest.fixture(scope="session")
def metadata() -> dict[str, Any]:
    return metadata_of(definition("smollm"), "smollm")


@pytest.fixture(scope="session")
def smollm2(smollm2_path: Path) -> Tokenizer:
    tokenizer = open_checkpoint(smollm2_path).tokenizer
    assert tokenizer is not None
    return tokenizer


PAIRS = {
    pre: (original := definition(pre), rebuild(metadata_of(original, pre)))
    for pre in ("gpt-2", "smollm", "llama-bpe", "qwen2")
}


@settings(max_examples=100)
@given(texts, st.sampled_from(sorted(PAIRS)))
def test_gguf_gives_the_ids_of_the_original(text: str, pre: str) -> None:
    original, rebuilt = PAIRS[pre]
    with_special = f"<|im_start|>{text}<|im_end|>\n{text}"
    for t in (text, with_special):
        ids = original.encode(t, add_special_tokens=False).ids
        assert rebuilt.encode(t) == ids
        assert rebuilt.decode(ids) == original.decode(ids)


def test_pre_tokenizers_differ_where_they_should() -> None:
    """Negative control: the kinds of the test above are not one and the same."""
    pieces = {
        pre: original.pre_tokenizer.pre_tokenize_str("It'S 1234!\n\n x")
        for pre, (original, _) in PAIRS.items()
    }
    assert len({str(p) for p in pieces.values()}) == len(pieces)
    assert set(PAIRS) <= set(PRE_TOKENIZERS)


@pytest.mark.parametrize(
    ("text", "ids"),
    [  # what llama.cpp gives for the file
        ("Hello world", [19556, 905]),
        ("1234 don't\n\n  x", [33, 34, 35, 36, 1326, 982, 8866, 1792]),
        ("<|im_start|>user", [1, 4093]),
        ("", []),
    ],
)
def test_smollm2_ids(smollm2: Tokenizer, text: str, ids: list[int]) -> None:
    assert smollm2.encode(text) == ids
    assert smollm2.decode(ids, skip_special=False) == text


@pytest.fixture(scope="session")
def gemma3(gemma3_checkpoint: Checkpoint) -> Tokenizer:
    tokenizer = gemma3_checkpoint.tokenizer
    assert tokenizer is not None
    return tokenizer


@pytest.mark.parametrize(
    ("text", "ids"),
    [  # what llama.cpp gives for the file
        ("Hello world", [9259, 1902]),
        ("  two  spaces and\ta tab", [138, 13498, 138, 35220, 532, 255968, 236746, 6937]),
        (" " * 40 + "x" + "\n" * 35, [167, 145, 236781, 137, 110]),
        ("a   b\n\n\nc\t\td", [236746, 139, 236763, 109, 236755, 255969, 236753]),
        (
            "<0x0A> <unused3> <table><tr>",
            [236820, 236771, 236781, 236771, 236776, 236813, 236743, 9, 236743, 168, 173],
        ),
        ("日本語 žluť 🙂🇩🇪 नमस्ते", [94951, 8023, 6357, 238116, 57235, 246841, 245562, 173040]),
        ("▁▁ x ▁", [236743, 236743, 1123, 236743, 236743]),
        (
            "def f(x):\n    return x  # 1",
            [2063, 517, 236769, 236781, 1473, 107, 140, 2060, 1123, 138, 236865, 236743, 236770],
        ),
        ("<start_of_turn>user\nhi<end_of_turn>\n", [105, 2364, 107, 2202, 106, 107]),
        ("[multimodal]", [5]),
        ("\x01\x7f\r\n", [249732, 251541, 251, 107]),
        ("½ﬁe\u0301\U000f0000", [238612, 240811, 236744, 238288, 481, 414, 366, 366]),
        ("</h2><h7>", [192, 236820, 236754, 236832, 236813]),
        ("", []),
    ],
)
def test_gemma3_ids(gemma3: Tokenizer, text: str, ids: list[int]) -> None:
    assert gemma3.encode(text) == ids
    assert gemma3.decode(ids, skip_special=False) == text.replace(SPACE, " ")


@given(text=texts.filter(lambda t: SPACE not in t))
def test_gemma3_loses_no_text(gemma3: Tokenizer, text: str) -> None:
    ids = gemma3.encode(text)
    assert gemma3.decode(ids, skip_special=False) == text
    assert all(0 <= i < gemma3.n_tokens for i in ids)


def test_gemma3_is_a_base_model(gemma3: Tokenizer) -> None:
    assert (gemma3.bos_id, gemma3.eos_ids, gemma3.pad_id) == (2, (1,), 0)
    assert gemma3.prepends_bos
    assert gemma3.encode("a", add_bos=True)[0] == 2
    with pytest.raises(ChatTemplateError, match="no chat template"):
        gemma3.apply_chat_template([{"role": "user", "content": "Hi"}])


# Bytes without a token in SmolLM2's vocabulary, in Hugging Face's too.
ABSENT = b"\x04\x06\x13\x14\x16\x1d\xf1\xf2"


def test_smollm2_drops_bytes_it_has_no_token_for(smollm2: Tokenizer) -> None:
    assert smollm2.encode("a\x04b\x1d") == smollm2.encode("a") + smollm2.encode("b")


@given(text=texts.filter(lambda t: not set(t.encode()) & set(ABSENT)))
def test_smollm2_loses_no_other_text(smollm2: Tokenizer, text: str) -> None:
    ids = smollm2.encode(text)
    assert smollm2.decode(ids, skip_special=False) == text
    assert all(0 <= i < smollm2.n_tokens for i in ids)


def test_smollm2_special_tokens_and_chat(smollm2: Tokenizer) -> None:
    assert (smollm2.bos_id, smollm2.eos_ids, smollm2.pad_id) == (1, (2,), 2)
    assert not smollm2.prepends_bos
    assert smollm2.encode("a", add_bos=True) == [1, *smollm2.encode("a")]
    assert smollm2.token_strings([19556, 1, 184]) == [
        "Hello",
        "<|im_start|>",
        "\N{REPLACEMENT CHARACTER}",
    ]
    text = smollm2.apply_chat_template([{"role": "user", "content": "Hi"}])
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant")
    silent = smollm2.apply_chat_template([{"role": "user", "content": "Hi"}], False)
    assert silent == text.removesuffix("<|im_start|>assistant\n")


def test_ids_that_stand_for_nothing(smollm2: Tokenizer) -> None:
    assert smollm2.decode([19556, 10**6, 905]) == "Hello world"
    assert smollm2.token(10**6) is None
    with pytest.raises(ValueError, match="negative"):
        smollm2.decode([-1])
    with pytest.raises(ValueError, match="negative"):
        smollm2.token(-1)


def test_bos_and_ends_of_turn_from_metadata(metadata: dict[str, Any]) -> None:
    extra = {"tokenizer.ggml.eot_token_id": 0, "tokenizer.ggml.add_bos_token": True}
    tokenizer = rebuild(metadata | extra)
    assert tokenizer.eos_ids == (2, 0)
    assert tokenizer.prepends_bos
    assert rebuild(metadata | {"tokenizer.ggml.pre": "llama-bpe"}).prepends_bos
    without = rebuild({k: v for k, v in metadata.items() if "bos" not in k})
    with pytest.raises(ValueError, match="no token that begins"):
        without.encode("a", add_bos=True)


TURN_ENDS = ["<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|eom_id|>"]


@pytest.mark.parametrize("end", TURN_ENDS)
def test_ends_of_turn_are_known_by_name(metadata: dict[str, Any], end: str) -> None:
    """SmolLM2's layout: the key names the end of the text, none the end of a turn."""
    tokens = [end if t == "<|im_end|>" else t for t in metadata["tokenizer.ggml.tokens"]]
    file = metadata | {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.eos_token_id": 0}
    assert rebuild(file).eos_ids == (0,)  # a base model has no turns
    file["tokenizer.chat_template"] = "{{ messages[0].content }}"
    assert rebuild(file).eos_ids == (0, 2)
    assert rebuild(file | {"tokenizer.ggml.eot_token_id": 1}).eos_ids == (0, 1)
    named = rebuild(file | {"tokenizer.ggml.unknown_token_id": 1}).special_tokens
    assert (named["eos_token"], named["unk_token"]) == ("<|endoftext|>", "<|im_start|>")


def test_user_defined_tokens_match_whole_but_are_not_special(metadata: dict[str, Any]) -> None:
    types = metadata["tokenizer.ggml.token_type"].copy()
    types[1] = 4
    tokenizer = rebuild(metadata | {"tokenizer.ggml.token_type": types})
    assert tokenizer.encode("<|im_start|>") == [1]
    assert tokenizer.decode([1, 2]) == "<|im_start|>"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model", "rwkv", "supported are 'gpt2', 'llama'"),
        ("pre", "tekken", r"pre = 'tekken': supported are gpt-2, smollm.*tokenizer\.json"),
        ("pre", None, "pre = None"),
        ("tokens", ["a", "a"], "no token twice"),
        ("tokens", [], "0 tokens"),
        ("tokens", ["a"] * 513, "513 tokens for a vocabulary of 512"),
        ("tokens", 7, "array of strings"),
        ("merges", ["Ġt"], "merges of known tokens"),
        ("merges", ["a b c"], "merges of known tokens"),
        ("merges", ["Ġ nonsense"], "merges of known tokens"),
        ("token_type", np.array([1]), "numbers"),
        ("token_type", None, "numbers"),
        ("bos_token_id", 511, "special token id 511"),
        ("eos_token_id", "2", "an integer"),
        ("add_bos_token", 1, "true or false"),
    ],
)
def test_damaged_metadata_is_named(
    metadata: dict[str, Any], key: str, value: Any, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        tokenizer_from_gguf(metadata | {f"tokenizer.ggml.{key}": value}, 512, "m.gguf")
    assert str(caught.value).startswith("m.gguf: ")


@settings(max_examples=100)
@given(data=st.data())
def test_mutated_tokenizers_raise_or_load(
    data: st.DataObject, metadata: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    types = Typed("i32", metadata["tokenizer.ggml.token_type"].tolist())
    tensors = llama_tensors(np.random.default_rng(0), "Q4_0", vocab=len(types.value))
    fields = {**LLAMA_METADATA, **metadata, "tokenizer.ggml.token_type": types}
    mutated = bytearray(gguf_bytes(fields, tensors))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(400, 9000))
        mutated[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "tokenizer.gguf"
    path.write_bytes(mutated)
    try:
        tokenizer = open_checkpoint(path).tokenizer
    except CheckpointError:
        return
    if tokenizer is not None:
        assert isinstance(tokenizer.decode(tokenizer.encode("the theory <|im_end|> 12")), str)


def train_sentencepiece(**options: Any) -> sentencepiece.SentencePieceProcessor:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 4),
        model_writer=model,
        model_type="bpe",
        vocab_size=360,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
        **options,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


USER_DEFINED = ["\n", "\n\n", "\n\n\n", "▁▁", "▁▁▁", "<b>", "</b>", "[x]"]


@pytest.fixture(scope="session")
def sentencepiece_model() -> sentencepiece.SentencePieceProcessor:
    return train_sentencepiece()


@pytest.fixture(scope="session")
def gemma_like() -> sentencepiece.SentencePieceProcessor:
    """User-defined tokens, some of them runs of spaces, and no space put first: as Gemma's."""
    return train_sentencepiece(user_defined_symbols=USER_DEFINED, add_dummy_prefix=False)


def sentencepiece_metadata(
    model: sentencepiece.SentencePieceProcessor, user_defined: Sequence[str] = ()
) -> dict[str, Any]:
    n = model.vocab_size()
    pieces = [model.id_to_piece(i) for i in range(n)]
    types = [
        2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 1
        for i in range(n)
    ]
    for i, piece in enumerate(pieces):
        if piece in user_defined:  # convert_hf_to_gguf.py writes their spaces as such
            pieces[i], types[i] = piece.replace(SPACE, " "), 4
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": np.array([model.get_score(i) for i in range(n)], "f4"),
        "tokenizer.ggml.token_type": np.array(types),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


@settings(max_examples=100)
@given(text=texts.filter(lambda t: "\0" not in t and SPACE not in t))
def test_sentencepiece_bpe_gives_sentencepiece_ids(
    text: str, sentencepiece_model: sentencepiece.SentencePieceProcessor
) -> None:
    tokenizer = rebuild(sentencepiece_metadata(sentencepiece_model))
    ids = tokenizer.encode(text)
    assert ids == sentencepiece_model.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.prepends_bos


@settings(max_examples=100)
@given(
    text=st.lists(st.one_of(texts, st.sampled_from([*USER_DEFINED, " ", "   \n", "<", "b>"])))
    .map("".join)
    .map(lambda t: t.replace(SPACE, " ").replace("\0", ""))
)
def test_user_defined_tokens_give_sentencepiece_ids(
    text: str, gemma_like: sentencepiece.SentencePieceProcessor
) -> None:
    metadata = sentencepiece_metadata(gemma_like, USER_DEFINED) | {
        "tokenizer.ggml.add_space_prefix": False
    }
    assert (metadata["tokenizer.ggml.token_type"] == 4).sum() == len(USER_DEFINED)
    tokenizer = rebuild(metadata)
    ids = tokenizer.encode(text)
    assert ids == gemma_like.encode(text)
    assert tokenizer.decode(ids) == text


def test_user_defined_tokens_that_may_see_spaces_either_way_are_refused(
    gemma_like: sentencepiece.SentencePieceProcessor,
) -> None:
    metadata = sentencepiece_metadata(gemma_like, USER_DEFINED)
    with pytest.raises(CheckpointError, match=r"user-defined tokens beside.*tokenizer\.json"):
        rebuild(metadata)
    tokens = [t.replace("  ", SPACE * 2) for t in metadata["tokenizer.ggml.tokens"]]
    raw = {"tokenizer.ggml.add_space_prefix": False, "tokenizer.ggml.tokens": tokens}
    with pytest.raises(CheckpointError, match=r"user-defined tokens.*tokenizer\.json"):
        rebuild(metadata | raw)


CONFIG = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A model directory with a tokenizer that truncates, as some published ones do."""
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**CONFIG)).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"eos_token_id": 0}))
    (tmp_path / "generation_config.json").unlink()
    backend = definition("smollm")
    backend.enable_truncation(4)
    backend.save(str(tmp_path / "tokenizer.json"))
    settings = {"bos_token": {"content": "<|im_start|>"}, "pad_token": "<|endoftext|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    return tmp_path


def load_tokenizer(directory: Path) -> Tokenizer:
    tokenizer = open_checkpoint(directory).tokenizer
    assert tokenizer is not None
    return tokenizer


def test_directory_tokenizer(directory: Path) -> None:
    tokenizer = load_tokenizer(directory)
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.pad_id) == (1, (0,), 0)
    assert not tokenizer.prepends_bos
    text = "Hello hello world, the theory of the thing isn't 1234 or 56."
    assert tokenizer.decode(tokenizer.encode(text)) == text  # nothing is cut
    (directory / "generation_config.json").write_text('{"eos_token_id": [2, 0]}')
    assert load_tokenizer(directory).eos_ids == (2, 0)


@pytest.mark.parametrize("said", [None, True, False])
@pytest.mark.parametrize("adds", [True, False])
@pytest.mark.parametrize("name", ["<|im_start|>", None])
def test_directory_tokenizer_adds_bos_where_transformers_does(
    directory: Path, adds: bool, said: bool | None, name: str | None
) -> None:
    """The post-processor decides, even against `add_bos_token`; a contradiction warns."""
    file = directory / "tokenizer.json"
    backend = tokenizers.Tokenizer.from_file(str(file))
    if adds:
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
        )
    backend.save(str(file))
    flags = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": name}
    settings = flags | ({} if said is None else {"add_bos_token": said})
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    expected = transformers.AutoTokenizer.from_pretrained(directory)("the").input_ids
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tokenizer = load_tokenizer(directory)
    assert tokenizer.encode("the", add_bos=tokenizer.prepends_bos) == expected
    assert tokenizer.prepends_bos == adds
    messages = [str(each.message) for each in caught if "add_bos_token" in str(each.message)]
    assert bool(messages) == (said is not None and said != adds and name is not None)


def test_a_tokenizer_that_pads_begins_with_no_padding(directory: Path) -> None:
    file = directory / "tokenizer.json"
    backend = tokenizers.Tokenizer.from_file(str(file))
    backend.enable_padding(direction="left", length=8, pad_id=0, pad_token="<|endoftext|>")
    backend.save(str(file))
    assert not load_tokenizer(directory).prepends_bos


def test_a_template_names_the_tokens_of_the_tokenizer(directory: Path) -> None:
    """Ids of generation_config.json end a generation; they are no names."""
    template = "{{ bos_token }}|{{ eos_token }}|{{ unk_token }}|{{ pad_token }}|{{ sep_token }}"
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": {"content": "<|im_start|>", "__type": "AddedToken"},
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|im_end|>",
        "chat_template": template,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    (directory / "generation_config.json").write_text('{"eos_token_id": [0, 1, 2]}')
    theirs = transformers.AutoTokenizer.from_pretrained(directory)
    tokenizer = load_tokenizer(directory)
    messages = [{"role": "user", "content": "Hi"}]
    found = tokenizer.apply_chat_template(messages)
    assert found == theirs.apply_chat_template(messages, tokenize=False)
    assert found == "<|im_start|>|<|im_end|>|<|endoftext|>|<|im_end|>|"
    assert tokenizer.eos_ids == (0, 1, 2)


def test_chat_templates_are_found(directory: Path) -> None:
    assert load_tokenizer(directory).chat_template is None
    with pytest.raises(ChatTemplateError, match="no chat template"):
        load_tokenizer(directory).apply_chat_template([])
    config = directory / "tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": "plain"}))
    assert load_tokenizer(directory).chat_template == "plain"
    named = [{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}]
    config.write_text(json.dumps({"chat_template": named}))
    assert load_tokenizer(directory).chat_template == "d"
    (directory / "chat_template.jinja").write_text("from a file")
    assert load_tokenizer(directory).chat_template == "from a file"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer.json", "{}", r"tokenizer\.json"),
        ("tokenizer_config.json", '{"bos_token": "<s>"}', "'<s>' is not in tokenizer.json"),
        ("tokenizer_config.json", '{"chat_template": 3}', "chat_template: expected a string"),
        ("generation_config.json", '{"eos_token_id": "x"}', "eos_token_id = 'x'"),
        ("generation_config.json", '{"eos_token_id": 511}', "special token id 511"),
    ],
)
def test_damaged_directories_are_named(
    directory: Path, file: str, content: str, message: str
) -> None:
    (directory / file).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(directory)


def test_other_tokenizer_files_are_refused_with_a_way_out(directory: Path) -> None:
    (directory / "tokenizer.json").rename(directory / "tokenizer.model")
    with pytest.raises(CheckpointError, match=r"tokenizer\.model but no tokenizer\.json.*save"):
        open_checkpoint(directory)


def test_added_tokens_beyond_the_base_vocabulary_count() -> None:
    backend = definition("gpt-2")
    before = Tokenizer(backend).n_tokens
    backend.add_tokens([AddedToken("<extra>")])
    assert Tokenizer(backend).n_tokens == before + 1
