"""`bitlens features`: what a dictionary sees in a prompt, and what its features stand for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..policies import NativePolicyName
from .console import show

if TYPE_CHECKING:
    from ..interp.dictionaries import Dictionary
    from ..interp.examples import Example, Examples
    from ..model.transformer import HookedTransformer

SHIPPED = "smollm2-135m-instruct/blocks.15.hook_resid_post"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog='Examples:  bitlens features "The Eiffel Tower is in"  |  bitlens features '
        "--feature 1234  |  bitlens features --token ' Paris'  |  bitlens features --text football"
        "  |  "
        'bitlens features "The Eiffel Tower is in" --html page.html'
    )(features)


def features(
    prompt: Annotated[str | None, typer.Argument(help="A text; '-' reads it from stdin.")] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="The model, as for `generate`.")] = (
        "smollm2-135m-instruct"
    ),
    dictionary: Annotated[
        str, typer.Option("--dictionary", "-d", help="A SAELens folder, or the shipped one's name.")
    ] = SHIPPED,
    top: Annotated[int, typer.Option(min=1, help="Features to show per token.")] = 3,
    feature: Annotated[int | None, typer.Option(help="Show this feature.")] = None,
    token: Annotated[str | None, typer.Option(help="Find features of a token, ' Paris'.")] = None,
    text: Annotated[str | None, typer.Option(help="Find features by text of examples.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Features to find, or examples to show.")] = 5,
    html: Annotated[
        Path | None, typer.Option(help="Write a page on the prompt to this file instead.")
    ] = None,
    against: Annotated[
        NativePolicyName | None,
        typer.Option(help="With --html: run the prompt under this policy too, show what flips."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the strongest features of each token, what they promote, and where else they fire."""
    chosen = [each is not None for each in (prompt, feature, token, text)]
    if sum(chosen) != 1:
        raise ValueError("features: give a prompt, or one of --feature, --token and --text")
    if html is None and against is not None:
        raise ValueError("features: --against goes with --html")
    if prompt is not None:
        prompt = typer.get_text_stream("stdin").read() if prompt == "-" else prompt
    if html is not None:
        _page(prompt, model, dictionary, against, html)
        return
    from ..interp.dictionaries import load_dictionary
    from ..interp.dictionaries.load import find_dictionary
    from ..interp.examples import load_examples
    from ..model import load

    path = find_dictionary(dictionary)
    loaded = load(model)
    sae = load_dictionary(path, model=loaded)
    view = _View(loaded, sae, load_examples(path, sae.cfg.d_sae), limit)
    if prompt is not None:
        _prompt(view, prompt, top, as_json)
        return
    found = [feature] if feature is not None else view.search(token, text)
    if feature is not None and not 0 <= feature < sae.cfg.d_sae:
        raise ValueError(f"--feature {feature}: the dictionary has {sae.cfg.d_sae} features")
    cards = [view.card(f) for f in found if f is not None]
    if as_json:
        typer.echo(json.dumps({"features": cards}, indent=2, ensure_ascii=False))
        return
    if not cards:
        typer.echo("no feature has it in its examples")
    for card in cards:
        view.show(card)


def _page(
    prompt: str | None,
    model: str,
    dictionary: str,
    against: NativePolicyName | None,
    path: Path,
) -> None:
    if prompt is None:
        raise ValueError("features: --html shows a prompt; `bitlens sae dashboard` shows features")
    from ..interp.pages.explore import explored
    from ..model import load

    beside = None if against is None else load(model, dtype=against.value)
    page, _ = explored(load(model), prompt, dictionary, against=beside)
    typer.echo(f"wrote {page.save(path)}")


class _View:
    """A dictionary's features as they are shown."""

    def __init__(
        self,
        model: HookedTransformer,
        dictionary: Dictionary,
        examples: Examples | None,
        limit: int,
    ) -> None:
        self.model = model
        self.dictionary = dictionary
        self.examples = examples
        self.limit = limit
        self.out = Console()

    def search(self, token: str | None, text: str | None) -> list[int]:
        """Returns the features to show, those with most examples first."""
        tokenizer = self.model.tokenizer
        if self.examples is None or tokenizer is None:
            raise ValueError("the dictionary has no examples to search: there is no examples file")
        if text is not None:
            return self.examples.with_text(text, tokenizer)[: self.limit]
        ids = tokenizer.encode(token or "")
        if len(ids) != 1:
            parts = ", ".join(map(repr, tokenizer.token_strings(ids)))
            raise ValueError(f"--token {token!r} is not one token but {len(ids)}: {parts}")
        return self.examples.with_token(ids[0])[: self.limit]

    def promoted(self, feature: int) -> tuple[list[str], list[str]]:
        """Returns the tokens that a feature promotes and suppresses."""
        from ..interp.examples import promoted_tokens

        if self.dictionary.cfg.d_out != self.model.config.d_model:
            return [], []
        if self.examples is not None:
            ids = self.examples.promoted[feature], self.examples.suppressed[feature]
        else:
            best, least = promoted_tokens(self.model, self.dictionary, [feature])
            ids = best[0], least[0]
        return self.token_strings(ids[0].tolist()), self.token_strings(ids[1].tolist())

    def card(self, feature: int) -> dict[str, Any]:
        """Returns what is known of a feature."""
        promotes, suppresses = self.promoted(feature)
        card: dict[str, Any] = {
            "feature": feature,
            "promotes": promotes,
            "suppresses": suppresses,
            "examples": [],
        }
        if self.examples is not None:
            card["density"] = float(self.examples.density[feature])
            card["largest"] = float(self.examples.largest[feature])
            card["examples"] = [
                {
                    "tokens": self.token_strings(example.tokens),
                    "activations": [round(a, 3) for a in example.activations],
                    "peak": example.peak,
                }
                for example in self.examples.of(feature)[: self.limit]
            ]
        return card

    def show(self, card: dict[str, Any]) -> None:
        """Prints a feature."""
        seen = f", fires at {card['density']:.3%} of tokens" if "density" in card else ""
        self.out.print(f"[bold]feature {card['feature']}[/]{seen}")
        self.out.print(f"  promotes   {escape(' '.join(map(repr, card['promotes'])))}")
        self.out.print(f"  suppresses {escape(' '.join(map(repr, card['suppresses'])))}")
        for example in card["examples"]:
            self.out.print("  ", coloured(example["tokens"], example["activations"]))

    def token_strings(self, ids: list[int]) -> list[str]:
        tokenizer = self.model.tokenizer
        return [str(i) for i in ids] if tokenizer is None else tokenizer.token_strings(ids)

    def example(self, feature: int) -> Example | None:
        """Returns the strongest example of a feature."""
        found = [] if self.examples is None else self.examples.of(feature)
        return found[0] if found else None


def coloured(tokens: list[str], activations: list[float]) -> Text:
    """Returns tokens on a background that is the brighter, the larger the activation."""
    largest = max([*activations, 1e-9])
    line = Text()
    for token, activation in zip(tokens, activations, strict=True):
        shown = token.replace("\n", "⏎")
        level = activation / largest
        style = "" if activation == 0 else "bold reverse" if level > 0.6 else "underline"
        line.append(shown, style=style)
    return line


def _prompt(view: _View, prompt: str, top: int, as_json: bool) -> None:
    from ..interp.prompt_features import prompt_features

    rows = prompt_features(view.model, view.dictionary, prompt, top=top)
    if as_json:
        found = [
            {
                "position": row.position,
                "token": row.token,
                "is_outlier": row.is_outlier,
                "features": [{"activation": round(a, 4), **view.card(f)} for f, a in row.features],
            }
            for row in rows
        ]
        typer.echo(json.dumps({"tokens": found}, indent=2, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False)
    # What says which feature it is keeps its width; the rest shares what a terminal has left.
    width = max(5, *(len(row.token) for row in rows))
    left = max(24, view.out.width - width - 25)
    table.add_column("token", no_wrap=True)
    table.add_column("feature", no_wrap=True, justify="right")
    table.add_column("activation", no_wrap=True, justify="right")
    table.add_column("promotes", no_wrap=True)
    table.add_column("fires elsewhere", no_wrap=True)
    for row in rows:
        token = Text(row.token.replace("\n", "⏎"), style="bold")
        if row.is_outlier:
            table.add_row(token, "", "", *_cells("norm too large", Text(), left))
            continue
        for i, (feature, activation) in enumerate(row.features):
            example = view.example(feature)
            where = Text()
            if example is not None:
                low, high = max(0, example.peak - 6), example.peak + 4
                tokens = view.token_strings(example.tokens)[low:high]
                where = coloured(tokens, example.activations[low:high])
            promotes = " ".join(t.strip() for t in view.promoted(feature)[0][:4])
            first = token if i == 0 else ""
            cells = _cells(promotes, where, left)
            table.add_row(first, str(feature), f"{activation:.1f}", *cells)
    show(table, view.out)


def _cells(promotes: str, where: Text, width: int) -> tuple[Text, Text]:
    """The last two cells of a row, cut to a width together."""
    shown = Text(promotes)
    shown.truncate(max(10, width * 2 // 5), overflow="ellipsis")
    where.truncate(max(10, width - width * 2 // 5), overflow="ellipsis")
    return shown, where
