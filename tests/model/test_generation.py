"""Generation: what comes out, where it stops, and what is captured on the way."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from bitlens.model import HookedTransformer
from bitlens.model.text.stream import TextStream
from hypothesis import given
from hypothesis import strategies as st
from support.random_models import BOS, EOS, PAD, byte_tokenizer, random_model

TEMPLATE = "{% for m in messages %}<bos>{{ m['role'] }}:{{ m['content'] }}{% endfor %}"


@pytest.fixture(autouse=True)
def _one_torch_thread() -> None:
    """The tensors are tiny: threads would only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return random_model("mistral", tokenizer=byte_tokenizer(TEMPLATE))


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().view(torch.int32)


def test_greedy_equals_running_everything_again(model: HookedTransformer) -> None:
    out = model.generate([1, 2, 3], max_new_tokens=8)
    tokens = torch.tensor([[1, 2, 3]])
    for _ in range(out.n_new[0]):
        tokens = torch.cat([tokens, model(tokens)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(out.tokens, tokens)


def test_batch_mates_padding_and_draws_change_nothing(model: HookedTransformer) -> None:
    prompts = [[5], [1, 2, 3, 4], [9, 8]]
    options = {"max_new_tokens": 6, "temperature": 1.0, "seed": 3, "min_new_tokens": 6}
    together = model.generate(prompts, n=2, **options)  # type: ignore[arg-type]
    for i, prompt in enumerate(prompts):
        alone = model.generate(prompt, n=2, **options)  # type: ignore[arg-type]
        assert torch.equal(together.tokens[2 * i : 2 * i + 2, 4:], alone.tokens[:, len(prompt) :])
        assert together.attention_mask[2 * i].tolist() == [0] * (4 - len(prompt)) + [1] * (
            len(prompt) + 6
        )
    assert not torch.equal(together.tokens[0], together.tokens[1])
    padded = torch.tensor([[5, 0, 0], [1, 2, 3]])
    right = model.generate(padded, attention_mask=torch.tensor([[1, 0, 0], [1, 1, 1]]), **options)  # type: ignore[arg-type]
    assert torch.equal(right.tokens[0, 3:], together.tokens[0, 4:])


def test_conversations_in_a_batch_are_each_alone() -> None:
    template = TEMPLATE + "{{ '/think' if enable_thinking else '' }}"
    model = random_model("mistral", tokenizer=byte_tokenizer(template))
    batch = [[{"role": "u", "content": "ab"}], [{"role": "u", "content": "c"}] * 2]
    options = {"max_new_tokens": 4, "min_new_tokens": 4}
    together = model.generate(batch, template_variables={"enable_thinking": True}, **options)  # type: ignore[arg-type]
    for row, each in enumerate(batch):
        text = model.apply_chat_template(each, enable_thinking=True)
        assert text.endswith("/think")
        alone = model.generate(text, prepend_bos=False, **options)  # type: ignore[arg-type]
        assert torch.equal(together.tokens[row, -alone.tokens.shape[1] :], alone.tokens[0])
    with pytest.raises(ValueError, match="template_variables: only go with conversations"):
        model.generate("ab", template_variables={"enable_thinking": True})


def test_no_seed_is_fresh_entropy(model: HookedTransformer) -> None:
    outs = [model.generate("a", max_new_tokens=12, temperature=2.0) for _ in range(2)]
    assert not torch.equal(outs[0].tokens, outs[1].tokens)


def test_captured_equals_one_pass_over_the_result(model: HookedTransformer) -> None:
    names = [name for name in model.hook_names if "blocks.1" in name or "blocks" not in name]
    out = model.generate([[1, 2, 3, 4], [7, 8]], max_new_tokens=5, min_new_tokens=5, capture=names)
    assert list(out.captured) == names
    _, cache = model.run_with_cache(
        out.tokens[:, :-1], names, attention_mask=out.attention_mask[:, :-1]
    )
    for name in names:
        found, expected = out.captured[name], cache[name]
        if name.endswith("hook_tokens"):
            assert torch.equal(found, expected)
            continue
        assert torch.equal(bits(found), bits(expected)), name


def test_captured_is_blank_after_a_sequence_ended(model: HookedTransformer) -> None:
    first = int(model.generate([1, 2], max_new_tokens=1).tokens[0, -1])
    names = ["hook_embed", "blocks.0.attn.hook_attn_scores", "blocks.2.attn.hook_pattern"]
    out = model.generate([[1, 2], [3, 4]], max_new_tokens=4, stop=[first], capture=names)
    assert out.n_new == [1, 4]
    assert out.tokens[0].tolist() == [1, 2, first, PAD, PAD, PAD]
    assert out.attention_mask[0].tolist() == [1, 1, 1, 0, 0, 0]
    embed, scores, pattern = (out.captured[name] for name in names)
    assert embed.shape[:2] == (2, 5)
    assert scores.shape == pattern.shape == (2, 6, 5, 5)
    assert embed[0, :2].all()
    assert not embed[0, 2:].any()
    assert not pattern[0, :, 2:].any()
    assert (scores[0, :, 2:] == -math.inf).all()
    assert embed[1].all()


def test_hooks_fire_in_every_pass(model: HookedTransformer) -> None:
    shapes = []

    def read(tensor: torch.Tensor, hook: object) -> None:
        shapes.append(tuple(tensor.shape))

    def to_token_65(tensor: torch.Tensor, hook: object) -> torch.Tensor:
        tensor = torch.zeros_like(tensor)
        tensor[..., 65] = 1
        return tensor

    with model.hooks([("blocks.0.attn.hook_pattern", read), ("unembed.hook_out", to_token_65)]):
        out = model.generate([1, 2, 3], max_new_tokens=3)
    assert shapes == [(1, 6, 3, 3), (1, 6, 1, 4), (1, 6, 1, 5)]
    assert out.text == ["AAA"]


def forced(model: HookedTransformer, text: Sequence[int]) -> HookedTransformer:
    """Makes the model write `text`, then <eos>."""
    script = iter([*text, EOS])

    def write(tensor: torch.Tensor, hook: object) -> torch.Tensor:
        tensor = torch.zeros_like(tensor)
        tensor[:, -1, next(script)] = 1
        return tensor

    model.reset_hooks()
    model.add_hook("unembed.hook_out", write)
    return model


@pytest.fixture
def scripted() -> HookedTransformer:
    return random_model("llama", tokenizer=byte_tokenizer())


def test_ends_at_eos_unless_min_new_tokens_forbids(scripted: HookedTransformer) -> None:
    out = forced(scripted, b"ab").generate("x", max_new_tokens=9)
    assert out.text == ["ab"]
    assert out.tokens[0].tolist() == [ord("x"), *b"ab", EOS]
    out = forced(scripted, b"").generate("x", max_new_tokens=1, min_new_tokens=1)
    assert out.tokens[0, 1] == 0  # all other logits are equal


def test_a_special_token_as_text_is_a_stop(scripted: HookedTransformer) -> None:
    for stop in ("<pad>", ["never", "<pad>"], PAD):
        out = forced(scripted, [*b"ab", PAD, *b"cd"]).generate("x", max_new_tokens=9, stop=stop)
        assert (out.n_new, out.text) == ([3], ["ab"])
        assert out.tokens[0].tolist() == [ord("x"), *b"ab", PAD]
    out = forced(scripted, [*b"ab", PAD, *b"cd"]).generate("x", max_new_tokens=9)
    assert out.text == ["abcd"]
    with pytest.raises(ValueError, match=r"holds the special token '<pad>'.*alone"):
        scripted.generate("x", stop="a<pad>")


def test_stop_strings_across_tokens(scripted: HookedTransformer) -> None:
    pieces: list[str] = []
    out = forced(scripted, b"one two END three").generate(
        "x", max_new_tokens=40, stop=["END", "ENOUGH"], stream=pieces.append
    )
    assert out.text == ["one two "]
    assert "".join(pieces) == "one two "
    out = forced(scripted, b"a EN").generate("x", max_new_tokens=40, stop="END")
    assert out.text == ["a EN"]


def test_streaming_never_splits_a_character(
    scripted: HookedTransformer, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "naïve → 日本 🙂!"
    pieces: list[str] = []
    out = forced(scripted, text.encode()).generate("x", max_new_tokens=60, stream=pieces.append)
    assert pieces == list(text)
    assert out.text == [text]
    forced(scripted, text.encode()).generate("x", max_new_tokens=60, stream=True)
    assert capsys.readouterr().out == text + "\n"
    with pytest.raises(ValueError, match="stream"):
        scripted.generate("x", n=2, stream=True)


@given(st.text(max_size=12), st.lists(st.text(min_size=1, max_size=3), max_size=2))
def test_streamed_text_is_the_text_before_the_first_stop(text: str, stops: list[str]) -> None:
    stream = TextStream(byte_tokenizer(), stops)
    pieces = []
    for token in text.encode():
        pieces.append(stream.push(token))
        if stream.stopped:
            break
    pieces.append(stream.finish())
    found = [text.index(stop) for stop in stops if stop in text]
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
    streamed = "".join(pieces)
    assert streamed == stream.text
    if not found:
        assert streamed == text
    else:
        # The stop that is complete first wins.
        assert streamed in {text[:at] for at, end in zip(found, ends, strict=True)}


def test_prompts_of_every_form(model: HookedTransformer) -> None:
    ids = list(b"hi")
    expected = model.generate("hi", max_new_tokens=3).tokens
    for prompt in (["hi"], ids, [ids], torch.tensor(ids), torch.tensor([ids])):
        assert torch.equal(model.generate(prompt, max_new_tokens=3).tokens, expected)
    chat = model.generate([{"role": "user", "content": "hi"}], max_new_tokens=1)
    assert chat.tokens[0, :-1].tolist() == [BOS, *b"user:hi"]
    bos = model.generate("hi", max_new_tokens=1, prepend_bos=True)
    assert bos.tokens[0, 0] == BOS


def test_bad_requests_are_named(model: HookedTransformer) -> None:
    for error, message, prompt, options in (
        (ValueError, "empty prompt", "", {}),
        (ValueError, "empty prompt", [], {}),
        (ValueError, "empty prompt", [[1], []], {}),
        (ValueError, "int64", torch.tensor([1.0]), {}),
        (ValueError, "not in the vocabulary", [260], {}),
        (TypeError, "prompt", 3, {}),
        (ValueError, "exceeds the context", "a", {"max_new_tokens": 128}),
        (ValueError, "max_new_tokens = 0", "a", {"max_new_tokens": 0}),
        (ValueError, "min_new_tokens = 9", "a", {"min_new_tokens": 9, "max_new_tokens": 8}),
        (ValueError, "n = 0", "a", {"n": 0}),
        (ValueError, "top_p", "a", {"top_p": 2.0}),
        (ValueError, "stop", "a", {"stop": ""}),
        (TypeError, "stop", "a", {"stop": [1.5]}),
        (KeyError, "did you mean 'hook_embed'", "a", {"capture": "hook_embd"}),
        (ValueError, "attention_mask", "a", {"attention_mask": torch.ones(1, 1)}),
    ):
        with pytest.raises(error, match=message):
            model.generate(prompt, **options)  # type: ignore[arg-type]


def test_a_model_without_a_tokenizer_takes_ids_only() -> None:
    model = random_model("llama")
    out = model.generate([1, 2], max_new_tokens=2)
    assert out.text == []
    for call in (
        lambda: model.generate("a"),
        lambda: model.generate([1], stop="x"),
        lambda: model.to_tokens("a"),
        lambda: model.to_string([1]),
    ):
        with pytest.raises(ValueError, match="without a tokenizer"):
            call()
