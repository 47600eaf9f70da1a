"""Chat templates: Jinja programs out of model files, so strangers' code.

A template renders in a process of its own (chat_template_child.py) that starts when first needed,
in about a tenth of a second, and stays for the next conversation. Templates render to the text
that Hugging Face's `apply_chat_template` gives.
"""

from __future__ import annotations

import importlib.util
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Message = Mapping[str, Any]

_CHILD = Path(__file__).with_name("chat_template_child.py")
# All the child gets to know of this process: where its libraries are and what time it is.
_ENVIRONMENT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ")
_LIBRARIES = ("jinja2", "markupsafe")


class ChatTemplateError(ValueError):
    """A chat template that cannot be compiled, fails, or refuses the messages."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits on the time and memory of rendering a conversation.

    Attributes:
        cpu_seconds: Of the renderer's own time, so a busy machine makes no difference.
        n_bytes: Of address space, the interpreter included.
        n_chars: Of text.
    """

    cpu_seconds: float = 2.0
    n_bytes: int = 512 << 20
    n_chars: int = 16 << 20


# A renderer that uses no CPU and says nothing is given up after this many times its CPU time.
_PATIENCE = 30.0


class ChatTemplate:
    """A chat template.

    Attributes:
        source: The Jinja text.
    """

    def __init__(self, source: str, limits: Limits | None = None) -> None:
        self.source = source
        self.limits = limits or Limits()
        self._renderer: _Renderer | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[ChatTemplate], tuple[str, Limits]]:
        """Copies start a renderer of their own."""
        return ChatTemplate, (self.source, self.limits)

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool,
        special_tokens: Mapping[str, str],
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Returns the conversation as one string.

        Args:
            messages: Dicts with "role" and "content", oldest first; what JSON can hold.
            add_generation_prompt: Whether to open the assistant's turn.
            special_tokens: What the template may use, such as `bos_token` and `eos_token`.
            variables: What else it is given, such as `tools` or `enable_thinking`; these win.

        Raises:
            ChatTemplateError: with the template's own message where it has one; or it took more
                time, memory or text than `limits`.
        """
        for message in messages:
            if not isinstance(message, Mapping) or "role" not in message:
                raise ChatTemplateError(
                    f"a message is a dict with 'role' and 'content': {message!r}"
                )
        # A field of None is one that is not there: what APIs return for a message without tools.
        known = [{k: v for k, v in message.items() if v is not None} for message in messages]
        given = {
            "tools": None,
            "documents": None,
            **special_tokens,
            **(variables or {}),
            "messages": known,
            "add_generation_prompt": add_generation_prompt,
        }
        _check_tools(given["tools"])
        try:
            request = json.dumps(given)
        except (TypeError, ValueError, RecursionError) as error:
            raise ChatTemplateError(
                f"a message or a template variable holds what JSON cannot: {error}"
            ) from error
        with self._lock:
            answer = self._ask(request)
        if "text" not in answer:
            raise ChatTemplateError(f"the chat template failed: {answer['error']}")
        return answer["text"]

    def _ask(self, request: str) -> dict[str, str]:
        # After a fork the parent's renderer is the parent's.
        if self._renderer is None or self._renderer.owner != os.getpid():
            self._renderer = _Renderer(self.source, self.limits)
        try:
            return self._renderer.ask(request)
        except BaseException:
            # It died, or an interrupt left half an answer in the pipe.
            self._renderer.stop()
            self._renderer = None
            raise


def _check_tools(tools: object) -> None:
    if tools is None or (
        isinstance(tools, Sequence) and all(isinstance(tool, Mapping) for tool in tools)
    ):
        return
    raise ChatTemplateError(
        "tools: expected a list of JSON schemas; "
        "transformers.utils.get_json_schema makes one of a function"
    )


class _Renderer:
    """The child process of one template."""

    def __init__(self, source: str, limits: Limits) -> None:
        self.owner = os.getpid()
        self._limits = limits
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        )
        self.stop = weakref.finalize(self, _stop, self._process, self.owner)
        setup = {"path": _library_folders(), "source": source, **asdict(limits)}
        self._setup = json.dumps(setup).encode() + b"\n"

    def ask(self, request: str) -> dict[str, str]:
        """The child's answer: {"text": ...} or {"error": ...}."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(self._setup + request.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ChatTemplateError(self._death()) from None
        self._setup = b""
        answer: dict[str, str] = json.loads(self._read_line())
        return answer

    def _read_line(self) -> bytes:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        deadline = time.monotonic() + self._limits.cpu_seconds * _PATIENCE
        chunks: list[bytes] = []
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while not (chunks and chunks[-1].endswith(b"\n")):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise ChatTemplateError(self._too_long())
                chunk = os.read(pipe, 1 << 20)
                if not chunk:
                    raise ChatTemplateError(self._death())
                chunks.append(chunk)
        return b"".join(chunks)

    def _too_long(self) -> str:
        return f"the chat template took more than {self._limits.cpu_seconds:g} s"

    def _death(self) -> str:
        status = self._process.wait()
        if status == -signal.SIGPROF:
            return self._too_long()
        assert self._process.stderr is not None
        said = self._process.stderr.read().decode(errors="replace").strip().splitlines()
        return (
            f"the chat template ended its renderer (exit status {status}; it may have "
            f"{self._limits.n_bytes >> 20} MiB): {said[-1] if said else 'it said nothing'}"
        )


def _stop(process: subprocess.Popen[bytes], owner: int) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        assert pipe is not None
        with suppress(BrokenPipeError):  # what a dead renderer left unread
            pipe.close()
    if owner == os.getpid():
        process.kill()
        process.wait()


def _library_folders() -> list[str]:
    """Where the child finds Jinja: it reads no site configuration and no working directory."""
    folders = []
    for name in _LIBRARIES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ChatTemplateError(f"chat templates need {name}: pip install {name}")
        folders.append(str(Path(spec.origin).parents[1]))
    return list(dict.fromkeys(folders))
