"""HTML for notebooks: tables and heat in them, without a script, without a request, dark and light.

A notebook that does not trust its output drops the style; what is left is a plain table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_STYLE = """
.bitlens-out { color-scheme: light dark; font: 13px/1.5 system-ui, sans-serif; max-width: 100%;
  --ink: light-dark(#16191f, #e7eaf0); --soft: light-dark(#5b6472, #98a2b3);
  --line: light-dark(#dfe3ea, #2a303b); --up: light-dark(#2f5fd0, #7aa2ff);
  --down: light-dark(#c22f3d, #ff7b86); --good: light-dark(#167a4a, #4cc38a); color: var(--ink); }
[data-jp-theme-light="true"] .bitlens-out, .vscode-light .bitlens-out { color-scheme: light; }
[data-jp-theme-light="false"] .bitlens-out, .vscode-dark .bitlens-out { color-scheme: dark; }
.bitlens-out p { margin: 0 0 6px; } .bitlens-out .title { font-weight: 600; }
.bitlens-out .soft { color: var(--soft); } .bitlens-out .good { color: var(--good); }
.bitlens-out .bad { color: var(--down); } .bitlens-out .scroll { overflow-x: auto; }
.bitlens-out table { border-collapse: collapse; margin: 4px 0 8px; font-size: 12.5px; }
.bitlens-out th, .bitlens-out td { text-align: left; padding: 2px 10px 2px 0; border: 0;
  border-bottom: 1px solid var(--line); white-space: pre; background: none; vertical-align: top;
  color: inherit; font-weight: 400; font-variant-numeric: tabular-nums; }
.bitlens-out thead th { color: var(--soft); } .bitlens-out td.number { text-align: right; }
.bitlens-out td.words { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 16em; }
.bitlens-out .heat td { padding: 2px 5px; border: 1px solid transparent; min-width: 12px; }
.bitlens-out .heat thead th { padding: 2px 5px; } .bitlens-out .heat tbody th { border: 0; }
.bitlens-out code, .bitlens-out .heat, .bitlens-out .strip {
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.bitlens-out .strip { line-height: 2; overflow-wrap: anywhere; }
.bitlens-out .strip span { white-space: pre-wrap; border-radius: 3px; padding: 2px 0; }
.bitlens-out .maps { display: flex; flex-wrap: wrap; gap: 12px; }
.bitlens-out .maps figure { margin: 0; } .bitlens-out .maps figcaption { color: var(--soft); }
.bitlens-out .maps img { width: 140px; height: 140px; image-rendering: pixelated;
  border: 1px solid var(--line); display: block; background: none; max-width: none; }
"""

Cell = str | float | int | None


def output(*parts: str) -> str:
    """Returns parts of HTML as one output, with the style they need."""
    return f'<div class="bitlens-out"><style>{_STYLE}</style>{"".join(parts)}</div>'


def line(text: str, kind: str = "") -> str:
    """Returns a paragraph; `kind` is "title", "soft", "good", "bad" or several of them."""
    return f'<p class="{kind}">{escape(text)}</p>'


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], words: Sequence[int] = ()) -> str:
    """Returns a table: numbers to the right, the columns in `words` wrapped."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "".join(
        f"<tr>{''.join(_cell(value, i in words) for i, value in enumerate(row))}</tr>"
        for row in rows
    )
    inside = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table>{inside}</table></div>'


def heat(share: float) -> str:
    """Returns the background of a value from -1 to 1: blue above 0, red below, none at 0."""
    if not abs(share) > 0.01:
        return ""
    colour = "var(--up)" if share > 0 else "var(--down)"
    percent = round(70 * min(1.0, abs(share)))
    return f"background: color-mix(in srgb, {colour} {percent}%, transparent)"


def visible(token: str) -> str:
    """Returns a token, escaped, with its line breaks shown, and spaces where it is nothing else."""
    if token and not token.strip(" "):
        return "␣" * len(token)
    return escape(token.replace("\n", "⏎").replace("\t", "⇥"))


def number(value: float) -> str:
    """Returns a number in four digits."""
    return f"{value:.4g}"


def _cell(value: Cell, wrapped: bool) -> str:
    if isinstance(value, str):
        return f'<td class="words">{escape(value)}</td>' if wrapped else f"<td>{escape(value)}</td>"
    text = "" if value is None else f"{value:,}" if isinstance(value, int) else number(value)
    return f'<td class="number">{text}</td>'
