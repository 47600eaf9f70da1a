"""Bodies of requests, drawn from the schema that a server publishes of them, and damaged ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hypothesis import strategies as st

# Halves of surrogate pairs, too: JSON can spell them, and no text encoding can.
TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=12)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | TEXT,
    lambda each: st.lists(each, max_size=3) | st.dictionaries(TEXT, each, max_size=3),
    max_leaves=5,
)
Strategy = st.SearchStrategy[Any]


class Bodies:
    """Draws values of a published schema.

    Attributes:
        known: Strategies for properties whose values a schema does not tell, by name.
    """

    def __init__(self, api: Mapping[str, Any], known: Mapping[str, Strategy]) -> None:
        self._components, self.known = api["components"]["schemas"], known
        self._made: dict[str, Strategy] = {}

    def of(self, schema: Mapping[str, Any]) -> Strategy:
        """Returns a strategy for values that a schema permits."""
        if "$ref" in schema:
            return self._named(schema["$ref"].rpartition("/")[2])
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return st.one_of([self.of(each) for each in schema[key]])
        if "const" in schema:
            return st.just(schema["const"])
        if "enum" in schema:
            return st.sampled_from(schema["enum"])
        kinds: dict[str, Callable[[Mapping[str, Any]], Strategy]] = {
            "string": _string, "integer": _integer, "number": _number, "array": self._array,
            "object": self._object, "boolean": lambda _: st.booleans(), "null": lambda _: st.none(),
        }  # fmt: skip
        return kinds[schema["type"]](schema) if "type" in schema else ANY

    def _named(self, name: str) -> Strategy:
        if name not in self._made:
            self._made[name] = st.deferred(lambda: self.of(self._components[name]))
        return self._made[name]

    def _array(self, schema: Mapping[str, Any]) -> Strategy:
        least = schema.get("minItems", 0)
        return st.lists(self.of(schema.get("items", {})), min_size=least, max_size=least + 2)

    def _object(self, schema: Mapping[str, Any]) -> Strategy:
        if "properties" not in schema:
            more = schema.get("additionalProperties", True)
            return st.dictionaries(TEXT, ANY if more is True else self.of(more), max_size=2)
        fields = {
            name: self.known.get(name, self.of(each)) for name, each in schema["properties"].items()
        }
        required = set(schema.get("required", ()))
        return st.fixed_dictionaries(
            {name: each for name, each in fields.items() if name in required},
            optional={name: each for name, each in fields.items() if name not in required},
        )


def _string(schema: Mapping[str, Any]) -> Strategy:
    if "pattern" in schema:
        return st.from_regex(schema["pattern"].replace("$", r"\Z"))
    return TEXT


def _integer(schema: Mapping[str, Any]) -> Strategy:
    least = int(schema.get("minimum", -(2**70)))
    most = int(schema.get("maximum", schema.get("exclusiveMaximum", 2**70)))
    small = st.integers(max(least, 0), max(least, min(most, 9)))
    return small | st.integers(least, most)


def _number(schema: Mapping[str, Any]) -> Strategy:
    least, most = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    return st.floats(least, most, allow_nan=False, allow_infinity=False)


@st.composite
def damaged(draw: st.DrawFn, whole: Strategy) -> Any:
    """A value of which something was replaced, taken away or added."""
    value = copy.deepcopy(draw(whole))
    places = list(_places(value))
    if not places:
        return draw(ANY)
    container, key = draw(st.sampled_from(places))
    what = draw(st.sampled_from(["replace", "take", "add"]))
    if what == "replace":
        container[key] = draw(ANY)
    elif what == "take":
        del container[key]
    elif isinstance(container, dict):
        container[draw(TEXT)] = draw(ANY)
    else:
        container.append(draw(ANY))
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with each of its keys."""
    keys = list(value) if isinstance(value, dict) else []
    for key in range(len(value)) if isinstance(value, list) else keys:
        yield value, key
        yield from _places(value[key])
