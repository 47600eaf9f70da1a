"""Renders one chat template in a process of its own; model/text/chat_template.py starts it.

A template is a program by a stranger. Jinja's immutable sandbox keeps it from the interpreter's
insides, and the process from everything else: it has no more memory, CPU time or output than it
is given, opens no file and starts no program, even if the sandbox should leak.

Speaks JSON, one object a line, over stdin and stdout. Imports nothing of bitlens.
"""

import importlib
import json
import resource
import signal
import sys
import time
from datetime import datetime
from typing import Any, NoReturn, TextIO

# What Jinja and the compiler import when they first need it.
_IMPORTED_LATE = (
    "encodings.unicode_escape",
    "pprint",
    "textwrap",
    "jinja2.constants",
    "jinja2.debug",
)


def _environment() -> Any:
    """The environment that Hugging Face documents for `apply_chat_template`."""
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class GenerationBlock(Extension):
        """`{% generation %}...{% endgeneration %}` marks the assistant's text; renders its body."""

        tags = {"generation"}  # noqa: RUF012 - what Jinja reads

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without Jinja's HTML escapes."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _confine(n_bytes: int) -> None:
    """Takes away what a template has no use for. Nothing can be imported afterwards."""
    for name in _IMPORTED_LATE:
        importlib.import_module(name)
    time.localtime()  # reads the time zone's file now
    for limit, value in (
        (resource.RLIMIT_AS, n_bytes),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))


def _render(template: Any, variables: dict[str, Any], n_chars: int) -> dict[str, str]:
    pieces: list[str] = []
    room = n_chars
    try:
        for piece in template.generate(**variables):
            room -= len(piece)
            if room < 0:
                return {"error": f"it wrote more than {n_chars} characters"}
            pieces.append(piece)
    except MemoryError:
        return {"error": "it needs more memory than it may have"}
    except RecursionError:
        return {"error": "it calls itself too deeply"}
    except Exception as error:  # a template is a program and fails in any way it likes
        return {"error": str(error)[:1000] or type(error).__name__}
    return {"text": "".join(pieces)}


def _serve(requests: TextIO, answers: TextIO) -> None:
    setup = json.loads(requests.readline())
    sys.path.extend(setup["path"])
    environment = _environment()
    _confine(setup["n_bytes"])
    template = None
    for line in requests:
        # The kernel ends the process when this runs out, also inside one long operation.
        signal.setitimer(signal.ITIMER_PROF, setup["cpu_seconds"])
        try:
            template = template or environment.from_string(setup["source"])
            answer = _render(template, json.loads(line), setup["n_chars"])
        except MemoryError:
            answer = {"error": "it needs more memory than it may have"}
        except Exception as error:  # of the compiler, likewise
            answer = {"error": str(error)[:1000] or type(error).__name__}
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve(sys.stdin, sys.stdout)
