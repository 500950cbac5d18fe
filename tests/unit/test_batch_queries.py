"""Lines of a batch search: numbered, found again by their offsets, and bad ones told apart."""

import io
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.batch_queries import LINE_MAX_BYTES, parse_line, parse_object, read_lines
from shared.errors import InvalidParameter

TERMS = {"k": 3, "min_score": None, "filter": None, "group_by": None, "per_group": 1}


def test_blank_lines_count_and_are_no_queries() -> None:
    lines = list(read_lines(io.BytesIO(b"\xef\xbb\xbfone\r\n\n  \t\ntwo\nthree")))
    assert [(line.line, line.text) for line in lines] == [(1, b"one"), (4, b"two"), (5, b"three")]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"  \r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_a_file_of_blank_lines_has_no_query(content: bytes) -> None:
    assert list(read_lines(io.BytesIO(content))) == []


@pytest.mark.parametrize("length", [LINE_MAX_BYTES, LINE_MAX_BYTES + 1, LINE_MAX_BYTES + 2, 2 * LINE_MAX_BYTES + 2])
@pytest.mark.parametrize("is_last", [False, True])
def test_a_line_that_is_too_long_is_cut_and_the_next_one_is_whole(length: int, is_last: bool) -> None:
    content = b"x" * length + (b"" if is_last else b"\nnext\n")
    first, *others = read_lines(io.BytesIO(content))
    assert (len(first.text) > LINE_MAX_BYTES) == (length > LINE_MAX_BYTES)
    assert [(line.line, line.offset, line.text) for line in others] == ([] if is_last else [(2, length + 1, b"next")])


@given(st.binary(max_size=300))
def test_any_bytes_are_lines_that_their_offsets_find_again(content: bytes) -> None:
    file = io.BytesIO(content)
    lines = list(read_lines(file))
    for number, line in enumerate(lines):
        file.seek(line.offset)
        assert list(read_lines(file, line.line)) == lines[number:]


@given(st.binary(max_size=60))
def test_any_bytes_are_a_search_or_refused_by_name(content: bytes) -> None:
    with suppress(InvalidParameter):
        parse_line(parse_object(content), TERMS)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (b"item", "not JSON"),
        (b'{"item_id": "a"', "not JSON"),
        (b'{"item_id": "a", "min_score": NaN}', "not JSON"),
        (b'{"item_id": "\\ud800"}', "not JSON"),
        (b'{"item_id": "\xff"}', "not JSON"),
        (b"[" * 100_000, "nested"),
        (b'["a"]', "JSON object"),
        (b'"a"', "JSON object"),
    ],
)
def test_a_line_without_an_object_is_refused(text: bytes, word: str) -> None:
    with pytest.raises(InvalidParameter, match=word):
        parse_object(text)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({}, "exactly one"),
        ({"item_id": "a", "image_url": "https://h/a.jpg"}, "exactly one"),
        ({"item_id": "a b"}, "item_id"),
        ({"item_id": "a", "k": 0}, "k: "),
        ({"item_id": "a", "k": 0, "crop": {"x": 2}}, "k: .*; crop.x: "),
        ({"item_id": "a", "callback_url": "https://h/"}, "callback_url"),
        ({"item_id": "a", "id": 7}, "id: "),
        ({"item_id": "a", "per_group": 2}, "per_group needs group_by"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused_by_name(fields: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidParameter, match=word):
        parse_line(fields, {})


def test_what_all_lines_share_counts_where_a_line_says_nothing_else() -> None:
    assert parse_line({"item_id": "a"}, TERMS).k == 3
    assert parse_line({"item_id": "a", "k": 7}, TERMS).k == 7
    assert parse_line(parse_object(json.dumps({"item_id": "a"}).encode()), {}).k == 10
