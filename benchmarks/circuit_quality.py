"""`python -m bitlens.benchmarks.circuit_quality RUN/transcoders`: how far graphs are to be trusted.

Traces the beginnings of held-out documents, whole graphs without a budget that cuts, and ablates in
the model the features of most influence, one by one, nothing frozen.
"""

from __future__ import annotations

import json
import statistics
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import load
from ..interp.activations import open_text
from ..interp.circuits import trace
from ..interp.circuits.faithfulness import faithfulness
from ..interp.training.layers.train import load_transcoders

OF_GRAPH = ("completeness", "replacement")
OF_ABLATIONS = ("spearman", "influence_spearman", "slope", "relative_error")


def main(
    transcoders: Annotated[Path, typer.Argument(help="What `bitlens clt train` wrote.")],
    model: str = "smollm2-135m-instruct",
    n_prompts: int = 20,
    n_tokens: Annotated[int, typer.Option(help="Tokens of a prompt.")] = 8,
    n_features: Annotated[int, typer.Option(help="Features to ablate in each graph.")] = 50,
    from_layer: Annotated[int, typer.Option(help="Ablate features of later layers alone.")] = 0,
) -> None:
    """Print the scores of each prompt, then their medians, quartiles and mean."""
    runner, found = load(model), load_transcoders(transcoders)
    rows: list[dict[str, float]] = []
    for document in islice(open_text().documents("held_out"), n_prompts):
        tokens = runner.to_tokens(document)[:, :n_tokens]
        graph = trace(runner, tokens, found, max_feature_nodes=20_000)
        checked = faithfulness(graph, n_features, from_layer=from_layer)
        of_graph = {name: getattr(graph, name) for name in OF_GRAPH}
        rows.append(of_graph | {name: getattr(checked, name) for name in OF_ABLATIONS})
        typer.echo(json.dumps(rows[-1] | {"features": int(graph.of_kind("feature").sum())}))
    typer.echo(json.dumps({name: _summary([row[name] for row in rows]) for name in rows[0]}))


def _summary(values: list[float]) -> dict[str, Any]:
    """Median and quartiles, and the mean with its standard error over prompts."""
    low, median, high = statistics.quantiles(values, n=4)
    error = statistics.stdev(values) / len(values) ** 0.5
    mean = statistics.fmean(values)
    return {"quartiles": [low, median, high], "mean": mean, "standard_error": error}


if __name__ == "__main__":
    typer.run(main)
