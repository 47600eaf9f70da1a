"""Chat templates render as transformers renders them, in a sandbox, and fail with their message."""

from __future__ import annotations

from typing import Any

import pytest
import tokenizers
import transformers
from bitlens.model.text.chat_template import ChatTemplate, ChatTemplateError
from bitlens.model.text.tokenizer import Tokenizer
from tokenizers import models

TEMPLATES = [
    "{% for m in messages %}\n  {% if m.role == 'user' %}\nU: {{ m.content }}\n  {% endif %}\n"
    "{% endfor %}\n{% if add_generation_prompt %}A:{% endif %}",
    "{{ bos_token }}{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}"
    "{{ m | tojson }}{% generation %}{{ m['content'] }}{% endgeneration %}{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}"
    "{{ ns.n }}{{ '' if tools is none else 'tools' }}{{ strftime_now('%%') }}{{ eos_token }}",
]
MESSAGES = [
    {"role": "user", "content": "Hi <b>&'\"é"},
    {"role": "assistant", "content": "Hello\n"},
    {"role": "user", "content": ""},
]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("prompt", [True, False])
def test_templates_render_as_transformers_does(template: str, prompt: bool) -> None:
    vocabulary = {"<|unknown|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<|unknown|>"))
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|im_end|>"
    )
    expected = theirs.apply_chat_template(
        MESSAGES, chat_template=template, tokenize=False, add_generation_prompt=prompt
    )
    ours = Tokenizer(backend, bos_id=1, eos_ids=[2], chat_template=template)
    assert ours.apply_chat_template(MESSAGES, prompt) == expected


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% if %}", "failed"),
        ("{{ messages[0].content.nothing.more }}", "failed"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe|undefined"),
        ("{% set _ = messages.append(1) %}", "failed"),
        ("{% for i in range(10**9) %}{% endfor %}", "failed"),
    ],
)
def test_bad_templates_raise(template: str, message: str) -> None:
    with pytest.raises(ChatTemplateError, match=message):
        ChatTemplate(template).render(MESSAGES, add_generation_prompt=True, special_tokens={})


def test_messages_are_checked() -> None:
    for bad in ("text", {"content": "no role"}):
        with pytest.raises(ChatTemplateError, match="a message is a dict"):
            ChatTemplate("").render([bad], add_generation_prompt=True, special_tokens={})  # type: ignore[list-item]


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}
VARIABLES = [
    {"tools": [WEATHER]},
    {"tools": []},
    {"documents": [{"title": "Paris", "text": "A city."}]},
    {"enable_thinking": False},
    {"bos_token": "<mine>", "enable_thinking": True, "tools": [WEATHER, WEATHER]},
]
READS_ALL = (
    "{{ bos_token }}{% if tools is not none %}{{ tools | tojson }}{% endif %}"
    "{% for d in documents or [] %}{{ d.title }}:{{ d.text }}{% endfor %}"
    "{{ enable_thinking is defined and enable_thinking }}"
    "{% for m in messages %}{{ m.content }}{{ m.tool_calls is defined }}{% endfor %}"
)


def both(template: str) -> tuple[Tokenizer, transformers.PreTrainedTokenizerFast]:
    vocabulary = {"<|unknown|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<|unknown|>"))
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        chat_template=template,
    )
    return Tokenizer(backend, bos_id=1, eos_ids=[2], chat_template=template), theirs


@pytest.mark.parametrize("variables", VARIABLES, ids=lambda v: "+".join(v))
def test_template_variables_reach_the_template_as_with_transformers(variables: Any) -> None:
    ours, theirs = both(READS_ALL)
    messages = [{"role": "assistant", "content": "Hi", "tool_calls": None}]
    found = ours.apply_chat_template(messages, **variables)
    assert found == theirs.apply_chat_template(messages, tokenize=False, **variables)
    assert found != ours.apply_chat_template(messages, enable_thinking="not given")


def test_a_batch_of_conversations_is_a_list_of_texts() -> None:
    ours, theirs = both(READS_ALL)
    batch = [MESSAGES, MESSAGES[:1], [*MESSAGES, *MESSAGES]]
    found = ours.apply_chat_template(batch, enable_thinking=True)
    assert found == theirs.apply_chat_template(batch, tokenize=False, enable_thinking=True)
    assert found == [ours.apply_chat_template(each, enable_thinking=True) for each in batch]


def test_what_a_template_cannot_be_given_is_refused() -> None:
    ours, theirs = both(READS_ALL)
    with pytest.raises(ChatTemplateError, match=r"get_json_schema makes one of a function"):
        ours.apply_chat_template(MESSAGES, tools=[len])
    with pytest.raises(ChatTemplateError, match="template variable holds what JSON cannot"):
        ours.apply_chat_template(MESSAGES, mood=object())
    with pytest.raises(ValueError, match="empty conversation"):
        theirs.apply_chat_template([])
    with pytest.raises(ChatTemplateError, match="empty conversation"):
        ours.apply_chat_template([])
