"""Hypothesis strategies for dictionaries and the rows they read, by bit patterns.

Both are recipes: they shrink toward few features, few bits and seed 0, and print as the code that
rebuilds the same bits.

    @given(data=st.data(), drawn=dictionaries())
    def test(data, drawn):
        dictionary, x = drawn.build(), data.draw(activations_for(drawn)).build()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...precision.extra import missing
from .config import DictionaryConfig
from .dictionary import Dictionary

try:
    from hypothesis import strategies as st
except ModuleNotFoundError as error:
    raise missing("bitlens.interp.dictionaries.strategies", "Hypothesis") from error

from ...precision.strategies import Constant, Integers, Random, Recipe

KINDS = ("random", "ties", "thresholds_met", "subnormals", "dead", "one_feature")
"""What `dictionaries` mixes: values of all bits; small integers, whose outputs tie; the same with
thresholds that outputs meet exactly; values near the smallest normal number; features that nothing
activates; and a single feature."""

DRAWN_ARCHITECTURES = ("standard", "topk", "jumprelu", "transcoder", "topk_transcoder")
"""What is drawn unless asked for others."""

_HOOK, _OUT = "blocks.0.hook_resid_post", "blocks.0.hook_mlp_out"
_SEEDS = st.integers(0, 2**16 - 1)


@dataclass(frozen=True)
class DrawnDictionary:
    """A dictionary as a recipe; `repr` is the expression that rebuilds it.

    Attributes:
        kind: One of `KINDS`.
        tensors: A recipe for each tensor of the architecture.
    """

    kind: str
    architecture: str
    d_in: int
    d_sae: int
    k: int | None
    tensors: Mapping[str, Recipe]

    def build(self) -> Dictionary:
        """Returns the dictionary."""
        built = {name: recipe.build() for name, recipe in self.tensors.items()}
        return Dictionary(config_of(self.architecture, self.d_in, self.d_sae, self.k), built)


def config_of(architecture: str, d_in: int, d_sae: int, k: int | None) -> DictionaryConfig:
    """Returns the config of a drawn dictionary."""
    transcoder = architecture.endswith("transcoder")
    return DictionaryConfig(
        architecture=architecture,
        d_in=d_in,
        d_sae=d_sae,
        d_out=d_in,
        k=k,
        hook_name=_HOOK,
        hook_name_out=_OUT if transcoder else _HOOK,
        apply_b_dec_to_input=not transcoder,
    )


@st.composite
def dictionaries(
    draw: st.DrawFn,
    *,
    architectures: Sequence[str] = DRAWN_ARCHITECTURES,
    kinds: Sequence[str] = KINDS,
    max_d_in: int = 300,
    max_d_sae: int = 80,
) -> DrawnDictionary:
    """Draws a dictionary in fp32, all its numbers finite. Raises ValueError for an unknown kind."""
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise ValueError(
            f"{', '.join(unknown)}: no kind of dictionary; there are {', '.join(KINDS)}"
        )
    kind, architecture = (
        draw(st.sampled_from(list(kinds))),
        draw(st.sampled_from(list(architectures))),
    )
    d_in = draw(st.sampled_from([n for n in (1, 2, 15, 16, 17, 255, 256, 257) if n <= max_d_in]))
    d_sae = 1 if kind == "one_feature" else draw(st.integers(2, max_d_sae))
    topk = "topk" in architecture
    k = draw(st.integers(1, d_sae)) if topk else None
    shapes = config_of(architecture, d_in, d_sae, k).tensor_shapes()
    seed = draw(_SEEDS)
    tensors = {
        name: _tensor(kind, name, shape, seed + i) for i, (name, shape) in enumerate(shapes.items())
    }
    return DrawnDictionary(kind, architecture, d_in, d_sae, k, tensors)


@st.composite
def activations_for(draw: st.DrawFn, drawn: DrawnDictionary, *, max_rows: int = 8) -> Recipe:
    """Draws rows [N, d_in] that suit a drawn dictionary, in fp32 and finite."""
    shape, seed = (draw(st.integers(1, max_rows)), drawn.d_in), draw(_SEEDS)
    if drawn.kind in ("ties", "thresholds_met"):
        return Recipe(shape, "fp32", Integers(seed, 2))
    if drawn.kind == "subnormals":
        return Recipe(shape, "fp32", Random(seed, exponents=(-70, -60)))
    return Recipe(shape, "fp32", Random(seed, exponents=(-3, 3)))


def _tensor(kind: str, name: str, shape: tuple[int, ...], seed: int) -> Recipe:
    if kind in ("ties", "thresholds_met"):
        if name == "threshold":
            # Met exactly by outputs of 1, or below them by less than bf16 can say.
            return Recipe(shape, "fp32", Constant(1.0 if seed % 2 else 1 - 2.0**-10))
        return Recipe(shape, "fp32", Integers(seed, 1))
    if kind == "dead" and name == "b_enc":
        return Recipe(shape, "fp32", Constant(-(2.0**20)))
    signed = name != "threshold"
    if kind == "subnormals" and name != "W_dec":
        exponents = (-66, -60) if name == "W_enc" else (-126, -122)
        return Recipe(shape, "fp32", Random(seed, exponents=exponents, signed=signed))
    return Recipe(shape, "fp32", Random(seed, exponents=(-4, 0), signed=signed))
