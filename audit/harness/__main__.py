"""The command line of lm-evaluation-harness, which knows the model "bitlens" besides its own."""

from __future__ import annotations

from . import lm_eval_model as _registered

if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()

__all__ = ["_registered"]
