import asyncio
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.serving.__main__ import empty
from benchmarks.serving.figures import GOALS, Goal, all_figures
from benchmarks.serving.http import Connection
from benchmarks.serving.load import BOUNDARY, LoadPlan, build_request
from benchmarks.serving.page_words import losses_in_words
from benchmarks.serving.processes import cpu_seconds, stopped
from benchmarks.serving.profile import RATE, category, held_seconds
from benchmarks.serving.statistics import latencies, median_of, name_value_lines
from benchmarks.serving.threads import (
    LOOP,
    NATIVE,
    NETWORK,
    UPKEEP,
    by_role,
    cpu_seconds_of_threads,
    members,
    roles,
)
from benchmarks.serving.weights import stand_in_weights
from tests.stack import wait_until


def test_the_median_of_repetitions_is_taken_number_by_number_at_any_depth() -> None:
    repetitions = [
        {"rate": 1.0, "variant": "batch 8", "cpu_ms": {"web": 5.0}},
        {"rate": 9.0, "variant": "batch 8", "cpu_ms": {"web": 1.0}},
        {"rate": 2.0, "variant": "batch 8", "cpu_ms": {"web": 3.0}},
    ]
    assert median_of(repetitions) == {"rate": 2.0, "variant": "batch 8", "cpu_ms": {"web": 3.0}}


def test_a_count_that_most_repetitions_lack_has_the_median_zero() -> None:
    assert median_of([{"from": {"engine": 4}}, {"from": {}}, {"from": {}}]) == {"from": {"engine": 0}}


def test_latencies_are_by_nearest_rank_and_nothing_gives_zeros() -> None:
    assert latencies([float(value) for value in range(1, 101)]) == {"p50": 50.5, "p95": 95, "p99": 99, "mean": 50.5}
    assert set(latencies([]).values()) == {0.0}


def test_a_stopped_process_uses_no_cpu_and_goes_on_after_the_block() -> None:
    spinning = [sys.executable, "-c", "import time\nend = time.time() + 60\nwhile time.time() < end: pass"]
    with subprocess.Popen(spinning, start_new_session=True) as process:
        try:
            groups = {"spinning": process.pid}
            wait_until(lambda: cpu_seconds(groups)["spinning"] > 0, 20, "it spins")
            with stopped(groups.values()):
                before = cpu_seconds(groups)["spinning"]
                time.sleep(0.3)
                assert cpu_seconds(groups)["spinning"] == before
            wait_until(lambda: cpu_seconds(groups)["spinning"] > before, 20, "it goes on")
        finally:
            process.kill()


def test_each_figure_is_printed_on_a_line_of_its_own() -> None:
    figures = {"cold_start_s": 3.14159, "passes": 1, "per_s": 12345.6, "share": 0.0123}
    assert name_value_lines(figures) == ["cold_start_s: 3.142", "passes: 1", "per_s: 12346", "share: 0.0123"]


def measured(rate: float, rival_rate: float, cold_start: float) -> dict[str, object]:
    window = {"rate": rate, "p95": 30.0, "cpu_ms": {"web": 4.0, "search": 8.0}, "cpu_share": 0.1}
    rival = {"clients": {"1": {**window, "cpu_share": 0.3}, "32": {**window, "rate": rival_rate}}}
    return {
        "raw": {"loop": {"rate": 100.0}, "forward_ms": {"p50": 11.0}, "forward_batch_8": 300.0, "bulk_rate": 200.0},
        "torch_eager": {"eager_batch_8": 50.0, "channels_last_batch_8": 60.0},
        "lookalike": {
            "cold": {"clients": {"1": window, "32": window}},
            "cold_start": {"seconds": cold_start, "peak_mib": 300.0},
        },
        "rivals": {"litserve": rival},
    }


def test_ratios_are_of_thirty_two_clients_and_of_both_encoders_the_worse_counts() -> None:
    figures = all_figures({"resnet50": measured(80.0, 64.0, 4.0), "tf_efficientnet_lite0": measured(90.0, 90.0, 6.0)})
    assert figures["end_to_end_ratio_resnet50"] == pytest.approx(0.8)
    assert figures["vs_litserve_resnet50"] == pytest.approx(1.25)
    assert figures["runtime_speedup_lite0"] == pytest.approx(6.0)
    assert figures["p95_overhead_ms_lite0"] == pytest.approx(19.0)
    assert figures["cpu_ms_per_search_lite0"] == pytest.approx(12.0)
    assert figures["cold_start_s"] == 6.0
    assert figures["load_generator_cpu_share"] == 0.3
    assert not [name for name in figures if name.startswith(("vs_sync_flask", "bulk_"))]


def test_what_was_measured_in_turn_counts_more_than_what_was_measured_apart() -> None:
    duels = {
        "raw": {"ratio": 0.5},
        "litserve": {"ratio": 0.9},
        "repeats_1": {"ratio": 11.0},
        "repeats_32": {"ratio": 4.0},
        "lone": {"ratio": 3.0, "difference": 12.5},
    }
    figures = all_figures({"tf_efficientnet_lite0": {**measured(90.0, 90.0, 6.0), "duels": duels}})
    assert figures["end_to_end_ratio_lite0"] == 0.5
    assert figures["vs_litserve_lite0"] == 0.9
    assert (figures["repeat_ratio_lite0"], figures["repeat_ratio_32_clients_lite0"]) == (11.0, 4.0)
    assert figures["p95_overhead_ms_lite0"] == 12.5


def test_goals_are_at_least_or_at_most_their_limit() -> None:
    assert Goal("ratio", 0.7, "").is_reached(0.7)
    assert not Goal("ratio", 0.7, "").is_reached(0.69)
    assert Goal("seconds", 5, "", is_most=True).is_reached(5)
    assert not Goal("seconds", 5, "", is_most=True).is_reached(5.1)
    assert len({goal.figure for goal in GOALS}) == len(GOALS)


def test_a_photo_is_sent_as_a_form_with_its_exact_length() -> None:
    plan = LoadPlan(8000, "/v1/searches", [], 1, fields={"k": "10"}, headers={"Prefer": "wait=30"})
    head, _, body = build_request(plan, b"\xff\xd8 photo \r\n").partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1/searches HTTP/1.1"
    assert b"Content-Length: %d" % len(body) in lines
    assert b"Prefer: wait=30" in lines
    assert body.count(b"--" + BOUNDARY) == 3
    assert b"\r\n\r\n\xff\xd8 photo \r\n\r\n--" + BOUNDARY in body


def test_a_photo_is_sent_as_base64_in_json() -> None:
    _, _, body = build_request(LoadPlan(8000, "/predict", [], 1, format="json"), b"abc").partition(b"\r\n\r\n")
    assert json.loads(body) == {"image": "YWJj"}


def test_the_client_reads_answers_that_come_in_pieces_and_notices_a_server_that_hangs_up() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in (b"HTTP/1.1 202 Accepted\r\nLocat", b"ion: /v1/jobs/7\r\nContent-Length: 4\r\n\r\n{}", b"\r\n"):
            await reader.read(1)
            writer.write(piece)
            await writer.drain()
        await reader.read(1)
        writer.close()

    async def talk() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        connection = await Connection.open("127.0.0.1", server.sockets[0].getsockname()[1])
        answer = await asyncio.wait_for(connection.request(b"xyz"), 10)
        assert (answer.status, answer.headers[b"location"], answer.body) == (202, b"/v1/jobs/7", b"{}\r\n")
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(connection.request(b"x"), 10)
        assert not connection.is_open
        connection.close()
        server.close()
        await server.wait_closed()

    with ThreadPoolExecutor(1) as pool:  # the browser tests' Playwright keeps a loop in the main thread
        pool.submit(lambda: asyncio.run(talk())).result()


def test_samples_are_named_by_the_innermost_frame_that_tells_something() -> None:
    decoding = [
        "task (celery/app/trace.py:1)",
        "decode_image (worker/decode.py:4)",
        "ImageFile.load (PIL/ImageFile.py:2)",
    ]
    assert category(decoding) == "decode"
    assert category(["Hub.loop (kombu/hub.py:1)", "Redis.send (redis/connection.py:2)"]) == "celery and kombu"
    assert (
        category(["task (celery/trace.py:1)", "succeed (shared/jobs.py:5)", "send (redis/client.py:2)"])
        == "redis client"
    )
    assert category(["run (threading.py:1)", "_worker (concurrent/futures/thread.py:81)"]) == "waiting"
    assert category(["main (unknown.py:1)"]) == "other"


def test_threads_that_are_about_to_wait_have_no_part_of_a_profile() -> None:
    lines = [
        "run (threading.py:1);Condition.wait (threading.py:331) 900",
        "run (threading.py:1);OpenVinoEncoder.embed (worker/encoder/openvino_encoder.py:3) 75",
        "run (threading.py:1);Mapper.load (sqlalchemy/orm/mapper.py:3) 25",
    ]
    assert held_seconds(lines) == {"model": 75 / RATE, "sqlalchemy": 25 / RATE}


def test_stand_in_weights_are_the_same_each_time_and_fit_the_encoder(tmp_path: Path) -> None:
    from worker.encoder import load_encoder

    pixels = np.random.default_rng(3).standard_normal((4, 3, 64, 64)).astype(np.float32)
    stand_in_weights(pixels, tmp_path / "one.safetensors")
    stand_in_weights(pixels, tmp_path / "two.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    assert load_encoder("resnet50", tmp_path / "one.safetensors").dim == 2048


def test_a_folder_that_no_run_made_is_never_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SystemExit, match="not empty"):
        empty(tmp_path)
    assert (tmp_path / "thesis.txt").is_file()
    made = tmp_path / "made"
    empty(made)
    (made / "left.txt").touch()
    empty(made)
    assert not (made / "left.txt").exists()


def test_the_words_say_what_litserves_rate_would_leave_to_the_search_worker() -> None:
    window = {"rate": 90.0, "mean": 25.0, "p95": 30.0, "cpu_ms": {"web": 4.0, "search": 16.0}, "step_ms": {}}
    window |= {"cpu_share": 0.1, "slowest": {"mean": 40.0, "step_ms": {"queue": 12.0, "total": 30.0}}}
    steps = {"decode": 2.0, "embed": 9.0, "search": 1.0}
    run: dict[str, Any] = {
        "raw": {
            "loop": {"rate": 80.0, "step_ms": steps},
            "paused": {"p50": 14.0, "p95": 19.0},
            "forward_ms": {"p50": 5.0},
            "forward_batch_8": 250.0,
        },
        "lookalike": {
            "cold": {"clients": {"1": window, "32": window}},
            "repeats": {"1": {**window, "rate": 400.0}, "32": {**window, "rate": 400.0}},
            "profiles": {"repeats_1": {"held_ms": {"web": {"gunicorn": 0.6, "redis client": 0.39, "other": 0.01}}}},
            "bulk": {
                "rates": [100.0, 80.0],
                "raw_rates": [100.0],
                "ratio": 0.9,
                "cpu_ms": {"bulk": 15.0, "beat": 0.0},
                "alone": [{"embedded": 160, "seconds": 2.0}],
            },
        },
        "rivals": {},
        "duels": {
            "litserve": {
                "ours": [90.0],
                "theirs": [125.0],
                "ratio": 0.72,
                "our_cpu_ms": {"web": 3.0, "redis": 1.0, "search": 17.0},
                "their_cpu_ms": {"litserve": 15.0},
            },
            "sync_flask": {"ours": [90.0], "theirs": [40.0], "ratio": 2.25, "our_cpu_ms": {"web": 3.0, "search": 17.0}},
            "plain_celery": {"ours": [90.0], "theirs": [20.0], "ratio": 4.5, "our_cpu_ms": {}},
            "lone": {"floor": 14.0, "difference": 17.0},
            "repeats_1": {"ours": [390.0], "theirs": [40.0], "ratio": 9.75},
            "repeats_32": {"ours": [1600.0], "theirs": [100.0], "ratio": 16.0},
        },
    }
    told = "\n".join(losses_in_words({"resnet50": run}, 2))
    # 2 cores at 125 a second are 16 ms, 4 of them around the worker; 2 + 1 + 8 are the engine's.
    assert "90 searches a second of 21.0 ms of CPU time against 125 of 15.0 ms" in told
    assert "would leave 12.0 ms to the search worker" in told
    assert "take 11.0 of it in a plain loop: 1.0 ms for all that makes it a job. The worker takes 17.0." in told
    # 4 times 40 a second leave 2 cores 12.5 ms each, of which 11 + 3 are spoken for.
    assert "4 times Flask's 40 searches a second leave 12.5 ms of CPU time" in told
    assert "web, Redis and the others 3.0, the load generator 1.1: more than that. The search worker takes" in told
    assert "Celery's" not in told, "that goal is reached"
    assert "take 40.0 ms on average: queue 12.0, and the rest (HTTP, web, end of the job) 28.0" in told
    assert "of the goal's 15 ms 1.0 are left" in told
    # 20 ms of our processes and 0.25 of the client's: two cores can do 98.8 of these a second.
    assert "15 times the cold rate, 600 a second, would leave 1.67 ms of one core for each" in told
    assert "all 2 cores, without any wait, would do 99 a second" in told
    assert "gunicorn 0.60, redis client 0.39; 1.00 in all." in told
    assert "Repeats of 32 clients" not in told, "that goal is reached"
    assert "embeds 90 images a second" in told
    assert "that reaches 0.85 of it." in told
    assert "it is 80 a second, and CPU time of an image in ms: bulk 15.0. 2 cores have 25.0 in that time" in told
    run["duels"]["litserve"]["ratio"] = 1.1
    assert "In turn with LitServe" not in "\n".join(losses_in_words({"resnet50": run}, 2))


def test_cpu_time_is_told_by_what_threads_do() -> None:
    spinning = (
        "import threading, time\n"
        "end = time.time() + 60\n"
        "def spin():\n    while time.time() < end: pass\n"
        "threading.Thread(target=spin, name='embed-0', daemon=True).start()\n"
        "threading.Thread(target=time.sleep, args=(60,), name='watchdog', daemon=True).start()\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", spinning], start_new_session=True) as process:
        try:
            wait_until(lambda: len(cpu_seconds_of_threads(members(process.pid))) == 3, 20, "its threads run")
            pids = members(process.pid)
            assert pids == [process.pid]
            known = roles(pids)
            assert set(known.values()) == {NETWORK, LOOP, UPKEEP}
            before = cpu_seconds_of_threads(pids)
            wait_until(lambda: sum(cpu_seconds_of_threads(pids).values()) > sum(before.values()), 20, "it spins")
            used = by_role(before, cpu_seconds_of_threads(pids), known)
            assert next(iter(used)) == NETWORK
        finally:
            process.kill()


def test_a_thread_that_python_does_not_know_is_one_of_native_code() -> None:
    assert by_role({1: 5.0, 3: 1.0}, {1: 5.5, 2: 1.0, 3: 1.0}, {1: LOOP, 3: UPKEEP}) == {NATIVE: 1.0, LOOP: 0.5}
