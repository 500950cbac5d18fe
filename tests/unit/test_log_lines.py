"""Log lines: their form, their ids, and what must not stand in them."""

import json
import logging
import sys
from threading import Thread

import pytest

from shared.log_masks import MIN_SECRET_CHARACTERS, LogMask
from shared.logs import JsonLines, TextLines, add_log_ids, clear_log_ids, log_ids

NO_MASK = LogMask([])
KEY_SECRET = "q" * 43
WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def record(message: str, *arguments: object, **members: object) -> logging.LogRecord:
    made = logging.LogRecord("shop", logging.WARNING, __file__, 1, message, arguments, None)
    made.__dict__.update(members)
    return made


def failed(error: Exception) -> logging.LogRecord:
    made = record("It failed")
    try:
        raise error
    except type(error):
        made.exc_info = sys.exc_info()
    return made


def as_json(made: logging.LogRecord) -> dict[str, object]:
    line = JsonLines(NO_MASK).format(made)
    assert "\n" not in line
    return json.loads(line)


def test_a_json_line_holds_time_level_logger_message_and_further_members() -> None:
    line = as_json(record("%d of\n%s", 3, "höhe", status=503))
    assert str(line.pop("time")).endswith("+00:00")
    assert line == {"level": "WARNING", "logger": "shop", "message": "3 of\nhöhe", "status": 503}


def test_a_traceback_is_a_member_of_its_json_line_and_follows_a_line_of_text() -> None:
    made = failed(KeyError("colour"))
    assert str(as_json(made)["exc_info"]).endswith("KeyError: 'colour'")
    with log_ids({"job_id": "a"}):
        first, *others = TextLines(NO_MASK).format(made).splitlines()
    assert first.endswith("WARNING shop It failed [job_id=a]")
    assert others[-1] == "KeyError: 'colour'"


def test_ids_are_on_the_lines_of_their_thread_while_it_works_on_them() -> None:
    seen: list[dict[str, object]] = []

    def other_thread() -> None:
        seen.append(as_json(record("other")))

    with log_ids({"job_id": "a", "request_id": "r"}):
        with log_ids({"job_id": "b"}):
            add_log_ids(key_id="k")
            inner = as_json(record("inner"))
            thread = Thread(target=other_thread)
            thread.start()
            thread.join()
        outer = as_json(record("outer"))
    after = as_json(record("after"))
    assert (inner["job_id"], inner["request_id"], inner["key_id"]) == ("b", "r", "k")
    assert (outer["job_id"], outer["request_id"], outer.get("key_id")) == ("a", "r", None)
    for line in (after, *seen):
        assert not {"job_id", "request_id", "key_id"} & line.keys()


def test_a_thread_that_turns_to_something_else_drops_its_ids() -> None:
    add_log_ids(request_id="r")
    assert as_json(record("one"))["request_id"] == "r"
    clear_log_ids()
    assert "request_id" not in as_json(record("two"))


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("connecting to redis://:hunter2!x@db:6379/0.", "connecting to redis://***@db:6379/0."),
        ("postgresql+psycopg://shop:p@ss:w@db/x failed", "postgresql+psycopg://***@db/x failed"),
        ("postgresql://db/x?user=shop&password=hunter2&a=b", "postgresql://db/x?user=shop&password=***&a=b"),
        ("GET https://shop.example/a.jpg?token=hunter2", "GET https://shop.example/a.jpg?token=***"),
        ("{'Authorization': 'Bearer hunter2', 'Host': 'x'}", "{'Authorization': '***', 'Host': 'x'}"),
        ("Authorization: Basic aHVudGVyMg==", "Authorization: ***"),
        ("sent Bearer hunter2 to x", "sent Bearer *** to x"),
        (f"the secret {WEBHOOK_SECRET} is", "the secret whsec_*** is"),
        (f"key lk_0123456789ab_{KEY_SECRET}.", "key lk_0123456789ab_***."),
        (
            "Command # 4 (SET lookalike:job:1:image b'\\x89PNG\r\n) of pipeline caused error: OOM command not allowed",
            "Command # 4 (SET lookalike:job:1:image ***) of pipeline caused error: OOM command not allowed",
        ),
        (
            'Command # 1 (HSET lookalike:job:1 parameters {"a": 1}) of pipeline caused error: OOM',
            "Command # 1 (HSET lookalike:job:1 ***) of pipeline caused error: OOM",
        ),
    ],
)
def test_what_is_secret_by_its_form_is_masked(text: str, masked: str) -> None:
    assert LogMask([])(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "GET /v1/jobs/<job_id> 200 in 3.2 ms",
        "Serving release tf_efficientnet_lite0-31c4eccf47.flat with 300 images",
        "Copying https://shop.example/a.jpg to user@host",
        "Making encoder x for openvino; this happens once on a machine",
        "Command # 1 of the day",
    ],
)
def test_what_holds_no_secret_stays_as_it_is(text: str) -> None:
    assert LogMask(["root:Milvus"])(text) == text


def test_secrets_of_the_settings_are_masked_wherever_they_stand_but_for_very_short_ones() -> None:
    short = "a" * (MIN_SECRET_CHARACTERS - 1)
    mask = LogMask(["root:Milvus", short])
    assert mask(f"it said root:Milvus to {short}") == f"it said *** to {short}"
    secret = failed(ValueError("root:Milvus"))
    secret.__dict__["member"] = "root:Milvus"
    for line in (JsonLines(mask).format(secret), TextLines(mask).format(secret)):
        assert "Milvus" not in line
        assert "***" in line


def test_masking_leaves_a_json_line_whole() -> None:
    mask = LogMask(['quo"ted\\secret'])
    line = json.loads(JsonLines(mask).format(record('%s and password="x"', 'quo"ted\\secret')))
    assert line["message"] == '*** and password="***"'


def test_a_secret_that_a_client_sends_as_its_request_id_is_masked() -> None:
    key = f"lk_0123456789ab_{KEY_SECRET}"
    with log_ids({"request_id": key}):
        for line in (JsonLines(NO_MASK).format(record("x")), TextLines(NO_MASK).format(record("x"))):
            assert "lk_0123456789ab_***" in line
            assert KEY_SECRET not in line
