"""A chat template is a stranger's program: it reaches nothing, and ends within its limits."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bitlens.model.text.chat_template import ChatTemplate, ChatTemplateError, Limits

MESSAGES = [{"role": "user", "content": "Hi"}]
TIGHT = Limits(cpu_seconds=0.3)


def render(template: ChatTemplate | str, limits: Limits = TIGHT, **variables: str) -> str:
    if isinstance(template, str):
        template = ChatTemplate(template, limits)
    return template.render(MESSAGES, add_generation_prompt=True, special_tokens=variables)


ENDLESS = {
    "loops in loops": "{% for a in range(99999) %}{% for b in range(99999) %}"
    "{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
    "recursion that branches": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}"
    "{% endmacro %}{{ f(60) }}",
    "one long operation": "{% set ns = namespace(x=3) %}{% for i in range(60) %}"
    "{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "a list of itself twice": "{% set ns = namespace(a=['x']) %}{% for i in range(60) %}"
    "{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a | tojson }}",
    "a filter that works on": "{{ lipsum(n=10 ** 7) }}",
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_endless_templates_end(kind: str) -> None:
    with pytest.raises(ChatTemplateError, match=r"took more than 0.3 s|memory"):
        render(ENDLESS[kind])


GIANT = {
    "{{ 'a' * 10**10 }}": "memory",
    "{% for i in range(10**9) %}{% endfor %}": "Range too big",
    "{{ [0] * 10**10 }}": "memory",
    "{{ 'a'.center(10**10) }}": "memory",
    "{{ 'a' | center(10000000000) }}": "memory",
    "{{ '%1000000000d' % 1 }}": "memory",
    "{{ '{:>2000000000}'.format(1) }}": "memory",
    "{{ [1] | batch(10**9, 'x') | list }}": "memory",
    "{{ 'a' | indent(10**10, true) }}": "memory",
    "{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}": "more than 16777216 characters",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "too deeply",
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}": "recursion",
    "{% if 1 %}" * 3000: "recursion",
}


@pytest.mark.parametrize("source", GIANT, ids=lambda source: str(source)[:40])
def test_templates_that_blow_up_are_refused(source: str) -> None:
    with pytest.raises(ChatTemplateError, match=GIANT[source]):
        render(source, Limits())


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ cycler.__init__.__globals__.os.listdir('/') }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__code__ }}",
    "{{ '' | attr('__class__') }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ '{0.__class__}' | format(1) }}",
    "{{ self.__init__.__globals__ }}",
    "{{ messages[0].__class__ }}",
    "{{ messages.__class__.__base__ }}",
    "{% include '{path}' %}",
    "{% import '{path}' as secret %}{{ secret }}",
    "{% extends '{path}' %}",
    "{{ open('{path}').read() }}",
    "{{ get_flashed_messages.__globals__ }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_templates_reach_no_file_and_no_internals(tmp_path: Path, source: str) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    try:
        text = render(source.replace("{path}", str(secret)))
    except ChatTemplateError as error:
        text = str(error).replace(repr(str(secret)), "")
    for leak in ("the secret", "<class", "<module", "{'", "uid=", "<code"):
        assert leak not in text


@pytest.mark.parametrize(
    "attempt",
    [
        lambda child: child["open"](child["path"]),
        lambda child: child["os"].open(child["path"], os.O_RDONLY),
        lambda child: child["os"].listdir("/"),
        lambda child: child["os"].popen("true"),
    ],
)
def test_the_process_itself_can_open_and_start_nothing(
    tmp_path: Path, attempt: Callable[[dict[str, Any]], Any]
) -> None:
    """Were the sandbox to leak: in a confined process, not even Python code gets further."""
    from bitlens.model.text import chat_template_child

    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        outcome = b"reached"
        try:
            chat_template_child._confine(8 << 30)
            attempt({"open": open, "os": os, "path": str(secret)})
        except OSError:
            outcome = b"refused"
        finally:
            os.write(writer, outcome)
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    assert os.read(reader, 100) == b"refused"
    os.close(reader)


def test_the_renderer_knows_nothing_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from bitlens.model.text import chat_template

    started: dict[str, Any] = {}
    popen = chat_template.subprocess.Popen

    def spy(command: list[str], **options: Any) -> Any:
        started.update(options)
        return popen(command, **options)

    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr(chat_template.subprocess, "Popen", spy)
    assert render("{{ messages[0].content }}") == "Hi"
    assert "HF_TOKEN" not in started["env"]
    assert set(started["env"]) <= {"LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ"}


def test_a_template_renders_again_after_it_failed() -> None:
    endless = ENDLESS["loops in loops"]
    template = ChatTemplate("{% if bos_token %}" + endless + "{% endif %}ok", TIGHT)
    assert render(template) == "ok"
    with pytest.raises(ChatTemplateError, match=r"more than 0.3 s"):
        render(template, bos_token="<s>")
    assert render(template) == "ok"


def test_one_process_serves_many_conversations_and_threads() -> None:
    template = ChatTemplate("{{ bos_token }}")
    texts: dict[int, str] = {}

    def ask(i: int) -> None:
        texts[i] = render(template, bos_token=str(i))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    renderer = template._renderer
    for thread in threads:
        thread.join()
    assert texts == {i: str(i) for i in range(8)}
    assert template._renderer is renderer or renderer is None


def test_a_killed_renderer_is_an_error_and_then_replaced() -> None:
    template = ChatTemplate("ok")
    render(template)
    assert template._renderer is not None
    process = template._renderer._process
    process.kill()
    process.wait()  # so that the request itself meets a closed pipe
    with pytest.raises(ChatTemplateError, match="ended its renderer"):
        render(template)
    assert render(template) == "ok"


def test_renderers_end_with_their_template() -> None:
    template = ChatTemplate("ok")
    render(template)
    assert template._renderer is not None
    process = template._renderer._process
    del template
    assert process.returncode is not None


def test_copies_have_a_renderer_of_their_own() -> None:
    template = ChatTemplate("ok", TIGHT)
    render(template)
    other = copy.deepcopy(template)
    assert other.limits == TIGHT
    assert render(other) == "ok"
    assert other._renderer is not template._renderer


@pytest.mark.parametrize("content", [{1, 2}, object(), b"bytes"])
def test_messages_hold_what_json_can(content: object) -> None:
    message = {"role": "user", "content": content}
    with pytest.raises(ChatTemplateError, match="JSON cannot"):
        ChatTemplate("").render([message], add_generation_prompt=True, special_tokens={})


@pytest.mark.parametrize("text", ["\ud800", "\0", "é\u2028\n", "a" * 100_000])
def test_any_text_passes_through(text: str) -> None:
    message = {"role": "user", "content": text}
    template = ChatTemplate("{{ messages[0].content }}")
    rendered = template.render([message], add_generation_prompt=True, special_tokens={})
    assert rendered == text


def test_filters_that_import_late_work() -> None:
    """What Jinja imports when it first needs it is there, though no file can be opened any more."""
    source = "{{ 'a b' | wordwrap(1) }}{{ [1] | pprint }}{{ lipsum(1)[:0] }}"
    assert render(source) == "a\nb[1]"
