"""Chat templates render as transformers renders them, in a sandbox, and fail with their message."""

from __future__ import annotations

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
