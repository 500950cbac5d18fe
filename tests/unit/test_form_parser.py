"""Small forms: what the parser makes of them is what werkzeug's makes of them, or it leaves them to that."""

import io
import random
from typing import Any

import pytest
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from web.form_parser import MAX_PARTS, SMALL_BYTES, SmallFormParser, split_form

BOUNDARY = "7MA4YWxkTrZu0gW"
EDGE = f"--{BOUNDARY}"
PHOTO = bytes(range(256)) * 40


def part(head: str, content: bytes) -> bytes:
    return f"{EDGE}\r\n{head}\r\n\r\n".encode() + content + b"\r\n"


def text(name: str, content: str) -> bytes:
    return part(f'Content-Disposition: form-data; name="{name}"', content.encode())


def file(name: str, content: bytes, filename: str = "a.jpg", more: str = "\r\nContent-Type: image/jpeg") -> bytes:
    return part(f'Content-Disposition: form-data; name="{name}"; filename="{filename}"{more}', content)


def form(*parts: bytes, end: str = f"{EDGE}--\r\n") -> bytes:
    return b"".join(parts) + end.encode()


USUAL = {
    "a photo": form(file("image", PHOTO)),
    "a photo and fields": form(text("k", "10"), file("image", PHOTO), text("filter", '{"colour":"röt"}')),
    "typed fields": form(
        *(
            part(f'Content-Disposition: form-data; name="k"\r\nContent-Type: {kind}', "röt".encode())
            for kind in ("text/plain", "text/plain; charset=utf-8", "Text/Plain;charset=UTF-8", "application/json")
        )
    ),
    "several photos": form(file("image", PHOTO), file("image", b"second"), file("image", b"")),
    "a field twice": form(text("k", "1"), text("k", "2"), text("empty", "")),
    "line ends inside": form(file("image", b"\r\n\r\n--x\r\n"), text("k", "\r\n1\r\n")),
    "no line end at the end": form(text("k", "1"), end=f"{EDGE}--"),
    "more headers": form(file("image", PHOTO, more="\r\ncontent-type:  image/png \r\nX-Other: 1: 2")),
    "no type": form(file("image", PHOTO, more="")),
    "an escaped name": form(file("image", PHOTO, 'a \\"b\\" %22.jpg'), file("image", PHOTO, "")),
    "half a letter": form(part('Content-Disposition: form-data; name="k"', b"r\xc3")),
    "another order": form(part('Content-Disposition: form-data; filename="a;b.jpg"; name="image"', PHOTO)),
    "a name in two words": form(text("two words", "1")),
    "names as RFC 5987 has them": form(file("image", PHOTO, more="; filename*=UTF-8''r%C3%B6t.jpg")),
}
UNUSUAL = {
    "a preamble": b"hello\r\n" + form(text("k", "1")),
    "an epilogue": form(text("k", "1")) + b"bye",
    "blanks behind the edge": form(text("k", "1")).replace(f"{EDGE}\r\n".encode(), f"{EDGE} \t\r\n".encode()),
    "line feeds alone": form(text("k", "1")).replace(b"\r\n", b"\n"),
    "a charset": form(
        part('Content-Disposition: form-data; name="k"\r\nContent-Type: text/plain; charset=latin1', b"r\xf6")
    ),
    "a folded header": form(part('Content-Disposition: form-data;\r\n name="k"', b"1")),
    "a name of other letters": form(file("image", PHOTO, "röt.jpg")),
    "nothing in it": form(),
    "an edge inside": form(file("image", f"x\r\n{EDGE}y\r\n".encode())),
    "an edge without its line end": form(file("image", b"a--" + BOUNDARY.encode() + b"b")),
    "another disposition": form(part('Content-Disposition: attachment; name="k"', b"1")),
    "many parts": form(*(text("k", str(number)) for number in range(MAX_PARTS + 5))),
    "a long field": form(text("k", "x" * 100_000)),
}
BROKEN = {
    "no end": form(text("k", "1"), end=""),
    "no disposition": form(part("X-Other: 1", b"1")),
    "no blank line": f"{EDGE}\r\nContent-Disposition: form-data; name=k\r\n{EDGE}--\r\n".encode(),
    "nothing": b"",
    "no edge": b"hello",
}


def in_memory(
    total_content_length: int | None,
    content_type: str | None,
    filename: str | None,
    content_length: int | None = None,
) -> io.BytesIO:
    """Give werkzeug's parser a place for a file."""
    return io.BytesIO()


def outcome(parser: FormDataParser, body: bytes, length: int | None) -> Any:
    """Return all that a parser says about a body."""
    try:
        _, fields, files = parser.parse(io.BytesIO(body), "multipart/form-data", length, {"boundary": BOUNDARY})
    except (ValueError, RequestEntityTooLarge) as error:
        return repr(error)
    told = [(f.name, f.filename, f.content_type, f.read(), sorted(f.headers)) for _, f in files.items(multi=True)]
    return list(fields.items(multi=True)), list(files), told


def both(body: bytes, length: int | None = None, **options: Any) -> tuple[Any, Any]:
    length = len(body) if length is None else length
    return tuple(
        outcome(kind(in_memory, silent=False, **options), body, length) for kind in (SmallFormParser, FormDataParser)
    )


@pytest.mark.parametrize("name", USUAL)
def test_a_form_of_the_usual_shape_is_split_and_read_as_werkzeug_reads_it(name: str) -> None:
    assert split_form(USUAL[name], BOUNDARY.encode()) is not None
    ours, werkzeugs = both(USUAL[name])
    assert ours == werkzeugs
    assert ours[0] or ours[1], "there is something in it"


@pytest.mark.parametrize("name", UNUSUAL)
def test_any_other_form_is_left_to_werkzeug(name: str) -> None:
    assert split_form(UNUSUAL[name], BOUNDARY.encode()) is None
    ours, werkzeugs = both(UNUSUAL[name])
    assert ours == werkzeugs


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_form_is_refused_as_werkzeug_refuses_it(name: str) -> None:
    assert split_form(BROKEN[name], BOUNDARY.encode()) is None
    ours, werkzeugs = both(BROKEN[name])
    assert ours == werkzeugs
    assert isinstance(ours, str), "it is an error"


def test_no_form_is_read_in_another_way_than_werkzeug_reads_it() -> None:
    rng = random.Random(3)
    tokens = [
        EDGE.encode(),
        b"\r\n",
        b"\n",
        b"--",
        b" ",
        BOUNDARY.encode(),
        b"Content-Disposition: form-data; name=k",
        b"x",
    ]
    tokens += [text("k", "1"), file("image", PHOTO), b'Content-Disposition: form-data; name="i"; filename=f\r\n\r\n']
    for _ in range(3000):
        parts = [rng.choice(tokens) for _ in range(rng.randrange(1, 9))]
        body = form(*parts) if rng.random() < 0.7 else b"".join(parts)
        ours, werkzeugs = both(body)
        assert ours == werkzeugs, body


def test_limits_hold_as_before() -> None:
    long_field = form(text("k", "x" * 200_000))
    many = form(*(text("k", "") for _ in range(MAX_PARTS + 10)))
    for body, options in ((long_field, {"max_form_memory_size": 100_000}), (many, {"max_form_parts": MAX_PARTS + 5})):
        ours, werkzeugs = both(body, **options)
        assert ours == werkzeugs
        assert "RequestEntityTooLarge" in ours


@pytest.mark.parametrize("length", [SMALL_BYTES + 1, None])
def test_what_is_large_or_of_unknown_length_is_never_read_in_one_piece(length: int | None) -> None:
    class Stream(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert size is not None
            assert size > 0
            return super().read(size)

    body = form(file("image", bytes(SMALL_BYTES)))
    _, _, files = SmallFormParser(in_memory).parse(Stream(body), "multipart/form-data", length, {"boundary": BOUNDARY})
    assert files["image"].read() == bytes(SMALL_BYTES)
