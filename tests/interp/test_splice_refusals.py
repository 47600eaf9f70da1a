"""Edits and dictionaries that cannot be spliced, and the errors that say so."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from bitlens.interp.dictionaries import DictionaryError
from bitlens.interp.splicing import Edit, splice
from bitlens.model.hooks.registry import same_bits
from support.random_dictionaries import D_SAE, random_dictionary
from support.random_models import random_model
from support.spliced_llama import (
    CLEAN,
    MLP,
    MODEL,
    PLACES,
    RESID,
    SAE,
    TOKENS,
    TRANSCODER,
    placed,
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, "set", 1.0), "expected an index"),
        ((0, "clamp", 1.0), "expected one of set"),
        ((0, "set"), "needs a value"),
        ((0, "ablate", 0.0), "takes no value"),
        ((0, "set", float("nan")), "finite"),
        ((0, "add", torch.tensor([1.0, float("inf")])), "finite"),
        ((0, "set", 1.0, -1), "from 0 on"),
        ((0, "set", 1.0, slice(-3, None)), "from 0 on"),
        ((0, "set", 1.0, []), "none at all"),
        ((0, "set", 1.0, [2, 2]), "twice"),
        ((0, "set", torch.ones(3), [1, 2]), "3 values for 2 positions"),
    ],
)
def test_edits_that_are_none(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Edit(*arguments)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Edit(D_SAE, "ablate", hook_name=RESID), f"has {D_SAE} features"),
        (Edit(0, "ablate"), "for 2 of the dictionaries"),
        (Edit(0, "ablate", hook_name="blocks.0.hook_mlp_out"), "for none of the dictionaries"),
        (Edit(0, "ablate", positions=128, hook_name=RESID), "beyond the context"),
    ],
)
def test_edits_that_fit_no_dictionary(edit: Edit, message: str) -> None:
    with (
        pytest.raises(ValueError, match=message),
        splice(MODEL, [SAE, TRANSCODER], edits=[edit]),
    ):
        raise AssertionError


@pytest.mark.parametrize("positions", [8, [3, 8], slice(8, 20)])
def test_a_position_that_no_run_had(positions: Any) -> None:
    edit = Edit(0, "add", 1.0, positions)
    with (
        pytest.raises(ValueError, match="no run in this block reached position 8"),
        splice(MODEL, SAE, edits=[edit]),
    ):
        MODEL(TOKENS)
    with splice(MODEL, SAE, edits=[edit]):
        MODEL(TOKENS)
        MODEL.generate(TOKENS, max_new_tokens=3)


def test_dictionaries_that_do_not_fit() -> None:
    wide = random_model("llama", changes={"d_mlp": 80})
    cases: list[tuple[Any, str]] = [
        ([SAE, SAE], "two dictionaries write"),
        ({"blocks.0.hook_resid_post": SAE}, "trained on"),
        ([], "no dictionaries"),
        (torch.nn.Identity(), "Identity|iterable"),
        (random_dictionary(MODEL, *reversed(MLP), architecture="transcoder"), "comes before"),
        (random_dictionary(wide, "blocks.0.mlp.hook_post"), "80"),
        (random_dictionary(MODEL, RESID, metadata={"model_fingerprint": "f" * 64}), "fingerprint"),
    ]
    for dictionaries, message in cases:
        with (
            pytest.raises((DictionaryError, TypeError), match=message),
            splice(MODEL, dictionaries),
        ):
            raise AssertionError
    assert same_bits(MODEL(TOKENS), CLEAN)


def test_a_splice_that_has_ended() -> None:
    with splice(MODEL, SAE) as spliced:
        pass
    with pytest.raises(ValueError, match="has ended"):
        spliced.run_with_cache(TOKENS)


def test_threads_splice_what_they_asked_for() -> None:
    results: dict[str, bool] = {}

    def spliced(name: str, together: threading.Barrier, **options: Any) -> torch.Tensor:
        with splice(MODEL, placed(name), **options) as inside:
            together.wait()
            logits = inside(TOKENS)
            together.wait()
        assert inside.n_encoded == {PLACES[name][1] or PLACES[name][0]: TOKENS.numel()}
        return logits

    expected = {name: spliced(name, threading.Barrier(1), use_error_term=False) for name in PLACES}
    together = threading.Barrier(len(PLACES) + 1)

    def work(name: str) -> None:
        found = spliced(name, together, use_error_term=False)
        results[name] = same_bits(found, expected[name]) and not same_bits(found, CLEAN)

    threads = [threading.Thread(target=work, args=(name,)) for name in PLACES]
    for thread in threads:
        thread.start()
    together.wait()
    results["plain"] = same_bits(MODEL(TOKENS), CLEAN)
    together.wait()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys([*PLACES, "plain"], True)
