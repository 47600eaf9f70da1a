"""What needs an extra: code that runs with it, and names it where it is not installed."""

from __future__ import annotations

from typing import NamedTuple


class Use(NamedTuple):
    """Attributes: package: What the extra brings, under the name it is imported by."""

    extra: str
    package: str
    code: str


USES = (
    Use(
        "hub",
        "huggingface_hub",
        "import os; os.environ['HF_HUB_OFFLINE'] = '1'\n"
        "import bitlens\n"
        "try: bitlens.load('no-such/model')\n"
        "except FileNotFoundError as error:\n"
        "    if 'pip install' in str(error): raise RuntimeError(str(error)) from error",
    ),
    Use("precision", "hypothesis", "from bitlens.precision.strategies import inputs_for"),
    Use("precision", "hypothesis", "from bitlens.precision import differential_test"),
    Use(
        "precision",
        "flint",
        "from bitlens.precision.reals.arb import working_precision\nwith working_precision(): pass",
    ),
    Use(
        "bench",
        "matplotlib",
        "from bitlens.audit.postmortem.plot import require_matplotlib as r; r()",
    ),
    Use(
        "notebook",
        "anywidget",
        "from bitlens.interp.pages.widget import PageWidget",
    ),
    Use(
        "tools",
        "llguidance",
        "from bitlens.model.generation.guide import GuideMaker\nGuideMaker(None, 8).grammar({})",
    ),
    Use(
        "tasks",
        "reasoning_gym",
        "from bitlens.model.thinking import gym_problems\ngym_problems('chain_sum', 2)",
    ),
    Use(
        "llama-cpp",
        "xllamacpp",
        "from bitlens.model.interop.llama_cpp import require_llama_cpp as r; r()",
    ),
    Use("lm-eval", "lm_eval", "import bitlens.audit.harness.lm_eval_model"),
    Use("inspect", "inspect_ai", "import bitlens.audit.harness.inspect_provider"),
    Use("serve", "fastapi", "from bitlens.model.serving.http import create_app"),
    Use(
        "sae",
        "zstandard",
        "from bitlens.interp.activations.corpus import default_corpus\n"
        "next(iter(default_corpus(('36_sciq_tf',))))",
    ),
    Use(
        "probes",
        "sklearn",
        "import torch\n"
        "from bitlens.interp.probes import LogisticProbe\n"
        "x = torch.arange(24.0).reshape(6, 4)\n"
        "LogisticProbe('blocks.0.hook_resid_post').fit(x, [0, 0, 0, 1, 1, 1])",
    ),
    Use(
        "probes",
        "yaml",
        "from bitlens.interp.probes.data.pyrit import templates\ntemplates()",
    ),
    Use(
        "interop",
        "transformers",
        "import os\n"
        "from bitlens.model.interop.transformers_llama import empty_llama\n"
        "from bitlens.model.sources.resolve import open_checkpoint\n"
        "empty_llama(open_checkpoint(os.environ['MODEL']))",
    ),
)
