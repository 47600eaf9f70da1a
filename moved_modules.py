"""Modules by the names they had before, and the finder that lets an import of one still work."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "cli_audit": "cli.audit",
    "cli_context_cost": "cli.context_cost",
    "cli_model": "cli.model_argument",
    "cli_postmortem": "cli.postmortem",
    "model.activation_cache": "model.hooks.activation_cache",
    "model.activation_names": "model.hooks.activation_names",
    "model.activation_patching": "model.hooks.activation_patching",
    "model.architectures": "model.weights.architectures",
    "model.audit": "audit",
    "model.cache_decomposition": "model.hooks.cache_decomposition",
    "model.captured_gradients": "model.hooks.captured_gradients",
    "model.chat_template": "model.text.chat_template",
    "model.chat_template_child": "model.text.chat_template_child",
    "model.checkpoint": "model.weights.checkpoint",
    "model.context_cost": "audit.context_cost.cost",
    "model.context_cost_plot": "audit.context_cost.plot",
    "model.fused": "model.runners.fused",
    "model.ggml_blocks": "model.weights.ggml_blocks",
    "model.gradient_hook": "model.hooks.gradient_hook",
    "model.invariance": "audit.invariance.variations",
    "model.kv_cache": "model.cache.kv_cache",
    "model.kernels": "model.ops.kernels",
    "model.observation": "audit.invariance.observation",
    "model.op_sites": "model.ops.sites",
    "model.ops_huggingface": "model.ops.torch_huggingface",
    "model.ops_native": "model.ops.native",
    "model.ops_native_huggingface": "model.ops.native_huggingface",
    "model.ops_torch": "model.ops.torch_ops",
    "model.overrides": "model.hooks.overrides",
    "model.packed": "model.ops.packed",
    "model.policy": "model.ops.policy",
    "model.postmortem": "audit.postmortem",
    "model.prompts": "model.text.prompts",
    "model.recompute": "model.runners.recompute",
    "model.rope_parameters": "model.rope.parameters",
    "model.rope_scaling": "model.rope.scaling",
    "model.speed": "audit.speed",
    "model.surroundings": "audit.invariance.surroundings",
    "model.text_stream": "model.text.stream",
    "model.tokenizer": "model.text.tokenizer",
    "model.torch_library": "model.ops.torch_library",
    "model.transformer_lens_config": "model.hooks.transformer_lens_config",
    "model.verify": "audit.invariance.verify",
    "model.weight_pages": "model.ops.weight_pages",
    "model.weight_views": "model.hooks.weight_views",
    "policy_names": "policies",
    "precision.bounds.attention": "precision.operations.attention.bound",
    "precision.bounds.gates": "precision.operations.gates.bound",
    "precision.bounds.growth": "precision.arithmetic.growth",
    "precision.bounds.norms": "precision.operations.norms.bound",
    "precision.bounds.products": "precision.operations.products.bound",
    "precision.bounds.rope": "precision.operations.rope.bound",
    "precision.bounds.softmax": "precision.operations.softmax.bound",
}
"""Old and new names below `bitlens`; a package stands for everything in it."""


def new_name(name: str) -> str | None:
    """The name a moved module has now; None for one that never moved."""
    root, _, rest = name.partition(".")
    parts = rest.split(".") if root == __package__ else []
    for n in range(len(parts), 0, -1):
        moved = MOVED.get(".".join(parts[:n]))
        if moved is not None:
            return ".".join([root, moved, *parts[n:]])
    return None


class MovedModuleFinder:
    """Answers an import of an old name with the module of the new one, the same object.

    A finder and loader by its methods alone: importlib.abc would cost every start 10 ms.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec that this object loads, for old names alone."""
        return None if new_name(name) is None else ModuleSpec(name, self)

    def create_module(self, spec: ModuleSpec) -> None:
        """Leaves it to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Puts the module of the new name in place of the empty one made for the old."""
        new = new_name(module.__name__)
        assert new is not None, "find_spec answers for moved modules alone"
        sys.modules[module.__name__] = importlib.import_module(new)


def install() -> None:
    """Makes old names importable; first in line, since a package's own path has them not."""
    if not any(isinstance(finder, MovedModuleFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, MovedModuleFinder())
