"""`bitlens trace`: what led from a prompt to its next token."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from ..policies import NativePolicyName
from .console import err, out, print_json, show
from .options import Json, NativeDtypeOption

if TYPE_CHECKING:
    from ..interp.circuits import Graph
    from ..interp.circuits.edge_stability import EdgeStability
    from ..interp.circuits.transcoders import Transcoders
    from ..interp.pages import Page
    from ..model.transformer import HookedTransformer

Paraphrase = Annotated[
    list[str] | None, typer.Option(help="The same question in other words, for --stability.")
]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog='Example:  bitlens trace "The capital of France is" -t run/transcoders -o graph.json'
    )(trace)


def trace(
    prompt: Annotated[str, typer.Argument(help="A text; '-' reads it from stdin.")],
    transcoders: Annotated[
        Path, typer.Option("--transcoders", "-t", help="A folder that `bitlens clt train` wrote.")
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="As for `generate`.")] = (
        "smollm2-135m-instruct"
    ),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the pruned graph here, as JSON.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with the pruned graph to this file.")
    ] = None,
    dtype: NativeDtypeOption = NativePolicyName.fp32,
    max_feature_nodes: Annotated[int, typer.Option(min=0, help="Most features.")] = 4000,
    max_n_logits: Annotated[int, typer.Option(min=1, help="Most logits.")] = 10,
    desired_logit_prob: Annotated[float, typer.Option(help="Logits come to this.")] = 0.95,
    max_memory: Annotated[
        float | None, typer.Option(help="GiB beyond model and transcoders (default: 4).")
    ] = None,
    node_threshold: Annotated[float, typer.Option(help="Influence that nodes keep.")] = 0.8,
    edge_threshold: Annotated[float, typer.Option(help="Influence that edges keep.")] = 0.98,
    stability: Annotated[
        bool, typer.Option("--stability", help="Trace in fp32 and bf16, and every paraphrase.")
    ] = False,
    paraphrase: Paraphrase = None,
    check: Annotated[
        int, typer.Option(min=0, help="Ablate so many features in the model, nothing frozen.")
    ] = 0,
    top: Annotated[int, typer.Option(min=1, help="Nodes and edges to print.")] = 12,
    as_json: Json = False,
) -> None:
    """Trace which features led to the next token; write the graph, print its scores."""
    if paraphrase and not stability:
        raise ValueError("--paraphrase: only --stability compares prompts")
    text = typer.get_text_stream("stdin").read() if prompt == "-" else prompt
    budgets = {
        "max_feature_nodes": max_feature_nodes,
        "max_n_logits": max_n_logits,
        "desired_logit_prob": desired_logit_prob,
        "max_memory": None if max_memory is None else int(max_memory * (1 << 30)),
    }
    run = _Runs(model, transcoders, budgets, (node_threshold, edge_threshold))
    graph, pruned = run.graphs(text, dtype.value)
    if output is not None:
        pruned.save(output)
    if html is not None:
        _page(pruned).save(html)
    found = _summary(graph, pruned, top)
    if check:
        found["faithfulness"] = _faithfulness(graph, check)
    if stability:
        others = [run.graphs(text, "bf16" if dtype.value == "fp32" else "fp32")[1]]
        others += [run.graphs(each, dtype.value)[1] for each in paraphrase or []]
        found["stability"] = run.stability([pruned, *others], top)
    if as_json:
        print_json(**found)
    else:
        _show(found)


def _page(graph: Graph) -> Page:
    from ..interp.pages import graph_page

    return graph_page(graph)


class _Runs:
    """Traces prompts with one set of transcoders."""

    def __init__(
        self,
        model: str,
        transcoders: Path,
        budgets: dict[str, Any],
        thresholds: tuple[float, float],
    ) -> None:
        from ..interp.training.layers.train import load_transcoders

        self._source = model
        self._transcoders: Transcoders = load_transcoders(transcoders)
        self._budgets = budgets
        self._thresholds = thresholds
        self._models: dict[str, HookedTransformer] = {}

    def graphs(self, prompt: str, dtype: str) -> tuple[Graph, Graph]:
        """Returns a prompt's graph and the pruned one."""
        from ..interp.circuits import trace as trace_prompt
        from ..model import load

        if dtype not in self._models:
            self._models[dtype] = load(self._source, dtype=dtype)
        with err.status(f"tracing in {dtype}"):
            graph = trace_prompt(self._models[dtype], prompt, self._transcoders, **self._budgets)
            return graph, graph.prune(*self._thresholds)

    def stability(self, graphs: list[Graph], top: int) -> dict[str, Any]:
        """Returns how the edges of graphs differ."""
        from ..interp.circuits.edge_stability import edge_stability

        found: EdgeStability = edge_stability(graphs)
        edges = [
            {
                "source": source,
                "target": target,
                "mean": float(found.mean[i]),
                "standard_error": float(found.error[i]),
                "stable": bool(found.stable[i]),
            }
            for i, (source, target) in enumerate(found.edges[:top])
        ]
        return {
            "n_runs": len(graphs),
            "n_edges": len(found.edges),
            "n_stable": int(found.stable.sum()),
            "stable_share": found.stable_share,
            "edges": edges,
        }


def _summary(graph: Graph, pruned: Graph, top: int) -> dict[str, Any]:
    scores = graph.influence
    order = scores.where(graph.of_kind("feature"), -1.0).sort(descending=True, stable=True).indices
    best = [i for i in order[:top].tolist() if graph.nodes[i].kind == "feature"]
    return {
        "completeness": graph.completeness,
        "replacement": graph.replacement,
        "n_nodes": len(graph.nodes),
        "n_edges": len(graph.weights),
        "pruned": {
            "completeness": pruned.completeness,
            "replacement": pruned.replacement,
            "n_nodes": len(pruned.nodes),
            "n_edges": len(pruned.weights),
        },
        "logits": [
            {"label": n.label, "token": n.feature, "probability": n.probability}
            for n in graph.nodes
            if n.kind == "logit"
        ],
        "features": [
            {
                "node_id": graph.nodes[i].id,
                "label": graph.nodes[i].label,
                "activation": graph.nodes[i].activation,
                "influence": float(scores[i]),
            }
            for i in best
        ],
    }


def _faithfulness(graph: Graph, n_features: int) -> dict[str, Any]:
    from ..interp.circuits import faithfulness

    with err.status(f"ablating {n_features} features"):
        found = faithfulness(graph, n_features)
    return {
        "n_features": len(found.node_ids),
        "spearman": found.spearman,
        "influence_spearman": found.influence_spearman,
        "slope": found.slope,
        "relative_error": found.relative_error,
    }


def _show(found: dict[str, Any]) -> None:
    pruned = found["pruned"]
    out.print(
        f"completeness {found['completeness']:.3f}, replacement {found['replacement']:.3f}; "
        f"{found['n_nodes']:,} nodes, {found['n_edges']:,} edges; pruned to {pruned['n_nodes']:,} "
        f"and {pruned['n_edges']:,}: {pruned['completeness']:.3f} and {pruned['replacement']:.3f}"
    )
    for logit in found["logits"]:
        out.print(f"  {escape(logit['label'])}", highlight=False)
    table = Table("node", "activation", "influence", "what it is", box=None, pad_edge=False)
    for each in found["features"]:
        numbers = f"{each['activation']:.3f}", f"{each['influence']:.4f}"
        table.add_row(each["node_id"], *numbers, escape(each["label"]))
    show(table, out)
    if (check := found.get("faithfulness")) is not None:
        out.print(
            f"{check['n_features']} features ablated in the model: rank correlation with what the "
            f"graph predicts {check['spearman']:.3f}, slope {check['slope']:.3f} (1 is faithful); "
            "of influence with the change of the next token's distribution "
            f"{check['influence_spearman']:.3f}"
        )
    if (stability := found.get("stability")) is None:
        return
    out.print(
        f"{stability['n_stable']:,} of {stability['n_edges']:,} edges are stable over "
        f"{stability['n_runs']} runs; they have {stability['stable_share']:.3f} of all weight"
    )
    table = Table("source", "target", "weight", "", box=None, pad_edge=False)
    for each in stability["edges"]:
        weight = f"{each['mean']:+.3f} ± {each['standard_error']:.3f}"
        table.add_row(
            each["source"], each["target"], weight, "stable" if each["stable"] else "not stable"
        )
    show(table, out)
