"""Attributes as Milvus keeps them, and filters as it evaluates them.

Milvus's answer for a key that a row lacks has changed from version to version (`!=` true or unknown, `not` of an
unknown true or unknown). So nothing here depends on it: `not` is moved inwards until it stands before single
comparisons, and where a row without the field matters, `exists` is asked, which all versions answer. Nothing is left
with a `not` before what could be unknown, and otherwise unknown counts as false, as it always has.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any

from shared.attributes import AttributeValue, compared_text
from shared.filters import AllOf, AnyOf, Comparison, Condition, NotMet

log = logging.getLogger(__name__)

# Milvus takes 65,536 bytes of dynamic fields a row.
ATTRIBUTES_MAX_BYTES = 60_000

EVERY_ROW, NO_ROW = "id > 0", "id < 0"
_WORDS = {"eq": "==", "ne": "!=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_OPPOSITE = {"eq": "ne", "ne": "eq", "gt": "lte", "gte": "lt", "lt": "gte", "lte": "gt"}
# What Milvus and milvus-lite both understand between double quotes; every other character stands for itself.
_ESCAPED = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def stored_attributes(item_id: str, attributes: Mapping[str, AttributeValue]) -> dict[str, Any]:
    """Return an item's attributes as fields of its rows: booleans as numbers, texts as far as filters compare them.

    Where they take more than Milvus allows for a row, the longest texts are left out, and the log says so.
    """
    kept = {
        name: compared_text(value) if isinstance(value, str) else float(value) for name, value in attributes.items()
    }
    left_out = []
    while len(json.dumps(kept, ensure_ascii=False).encode()) > ATTRIBUTES_MAX_BYTES:
        left_out.append(max(kept, key=lambda name: len(str(kept[name]))))
        del kept[left_out[-1]]
    if left_out:
        log.warning("Item %r can't be filtered by %s: its attributes are too long", item_id, ", ".join(left_out))
    return {f"a_{name}": value for name, value in kept.items()}


def expression(condition: Condition) -> str:
    """Return what Milvus shall evaluate for a filter."""
    return _said(condition, is_met=True)


def _said(condition: Condition, is_met: bool) -> str:
    if isinstance(condition, NotMet):
        return _said(condition.part, not is_met)
    if isinstance(condition, AllOf | AnyOf):
        takes_all = isinstance(condition, AllOf) == is_met
        return _joined("and" if takes_all else "or", [_said(part, is_met) for part in condition.parts])
    return _met(condition) if is_met else _not_met(condition)


def _met(comparison: Comparison) -> str:
    if comparison.operator == "in":
        return _joined("or", [_compared(comparison.name, "eq", value) for value in comparison.value])
    compared = _compared(comparison.name, comparison.operator, comparison.value)
    return _joined("and", [_has(comparison.name), compared]) if comparison.operator == "ne" else compared


def _not_met(comparison: Comparison) -> str:
    if comparison.operator == "in":
        compared = _joined("and", [_compared(comparison.name, "ne", value) for value in comparison.value])
    else:
        compared = _compared(comparison.name, _OPPOSITE[comparison.operator], comparison.value)
    return _joined("or", [f"not ({_has(comparison.name)})", compared])


def _compared(name: str, operator: str, value: str | float) -> str:
    return f'$meta["a_{name}"] {_WORDS[operator]} {_literal(value)}'


def _has(name: str) -> str:
    return f'exists $meta["a_{name}"]'


def _literal(value: str | float) -> str:
    return f'"{value.translate(_ESCAPED)}"' if isinstance(value, str) else repr(value)


def _joined(word: str, parts: list[str]) -> str:
    if not parts:
        return EVERY_ROW if word == "and" else NO_ROW
    return parts[0] if len(parts) == 1 else f"({f' {word} '.join(parts)})"
