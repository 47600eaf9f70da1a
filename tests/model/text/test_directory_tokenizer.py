"""Tokenizers and chat templates of a Hugging Face directory."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import tokenizers
import transformers
from bitlens.model.sources import open_checkpoint
from bitlens.model.text.chat_template import ChatTemplateError
from bitlens.model.text.tokenizer import Tokenizer
from bitlens.model.weights.checkpoint import CheckpointError
from support.trained_tokenizers import definition

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
