"""Where each millisecond of a search goes: steps, CPU time by process, and py-spy's samples."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.encoder_precision import markdown_table
from benchmarks.serving.figures import SHORT
from benchmarks.serving.plot import PARTS, STEPS
from benchmarks.serving.scale import CLIENTS

KINDS = {"cold": "cold searches", "repeats": "exact repeats"}
STEP_TEXTS = {
    "queue": "from the record until a thread of the search worker has the job",
    "refresh": "has the catalogue changed?",
    "decode": "decode and resize",
    "embed": "the forward pass of its batch",
    "batch": "waiting for the model and for its batch",
    "search": "nearest items",
    "hits": "what the result tells of each item",
}


def losses(encoders: Mapping[str, Any]) -> Iterator[str]:
    """Yield the section's lines."""
    yield "## Where each millisecond goes"
    yield ""
    yield "What a client waits for, in ms, mean of cold searches, as the results tell it; the rest of the client's wait"
    yield "is HTTP, the web tier and the end of the job."
    yield ""
    yield from (*_step_table(encoders), "")
    yield "CPU time per cold search, in ms, by process; threads of the runtime and of FAISS count in `search`. Of"
    yield "the raw engine's loop it is wall time, with the model on all cores."
    yield ""
    yield from (*_cpu_table(encoders), "")
    for backbone, measured in encoders.items():
        short, ours = SHORT[backbone], measured["lookalike"]
        for load, profile in ours.get("profiles", {}).items():
            kind, clients = load.split("_")
            whose = f"{clients} clients" if clients != "1" else "one client"
            yield from _profile(f"{short}, {KINDS[kind]} of {whose}", profile)


def _step_table(encoders: Mapping[str, Any]) -> list[str]:
    columns = [(backbone, str(count)) for backbone in encoders for count in CLIENTS]
    windows = [encoders[backbone]["lookalike"]["cold"]["clients"][count] for backbone, count in columns]
    known = [name for window in windows for name in window["step_ms"] if name != "total"]
    rows = [
        [name, STEP_TEXTS.get(name, ""), *(f"{window['step_ms'].get(name, 0.0):.2f}" for window in windows)]
        for name in dict.fromkeys([*(step for step in STEPS if step in known), *known])
    ]
    steps = [sum(value for name, value in window["step_ms"].items() if name != "total") for window in windows]
    rest = [window["mean"] - known_ms for window, known_ms in zip(windows, steps, strict=True)]
    rows.append(["rest", "HTTP, web, end of the job", *(f"{value:.2f}" for value in rest)])
    rows.append(["all", "the client's wait", *(f"{window['mean']:.2f}" for window in windows)])
    headings = [f"{SHORT[backbone]}, {count} client{'s' if count != '1' else ''}" for backbone, count in columns]
    return markdown_table(("step", "", *headings), rows)


def _cpu_table(encoders: Mapping[str, Any]) -> list[str]:
    rows = []
    for backbone, measured in encoders.items():
        for count in CLIENTS:
            window = measured["lookalike"]["cold"]["clients"][str(count)]
            used = [window["cpu_ms"].get(part, 0.0) for part in PARTS]
            generator = window["cpu_share"] * 1000 / window["rate"]
            cells = [f"{value:.2f}" for value in (*used, generator, sum(used) + generator)]
            rows.append([f"{SHORT[backbone]}, {count} clients", *cells])
        steps = measured["raw"]["loop"]["step_ms"]
        told = ", ".join(f"{name} {value:.2f}" for name, value in steps.items())
        rows.append([f"{SHORT[backbone]}, raw engine: {told}", *["-"] * (len(PARTS) + 1), f"{sum(steps.values()):.2f}"])
    return markdown_table(("", *PARTS, "load generator", "all"), rows)


def _profile(load: str, profile: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {load}"
    yield ""
    if "unavailable" in profile:
        yield f"No profile: {profile['unavailable']}."
        yield ""
        return
    held, cpu = profile["held_ms"], profile["cpu_ms"]
    yield "CPU time of a search in ms by thread, as the system counts it; nobody looks on:"
    yield ""
    threads = profile["threads"]
    names = dict.fromkeys(name for used in threads.values() for name in used)
    rows = [[name, *(f"{used.get(name, 0.0):.2f}" for used in threads.values())] for name in names]
    rows.append(["all", *(f"{sum(used.values()):.2f}" for used in threads.values())])
    yield from (*markdown_table(("thread", *threads), rows), "")
    yield f"With py-spy looking on ({profile['rate']:.0f} a second then): ms of CPU time of a search that hold Python's"
    yield "interpreter, of which each process has one, by what held it; and the rest, which is native code beside it"
    yield "(network, decoding, index, hashing, sockets) and the change of threads."
    yield ""
    names = dict.fromkeys(name for categories in held.values() for name in categories)
    rows = [[name, *(f"{categories.get(name, 0.0):.2f}" for categories in held.values())] for name in names]
    sums = {process: sum(categories.values()) for process, categories in held.items()}
    rows.append(["the interpreter, all", *(f"{total:.2f}" for total in sums.values())])
    rows.append(["beside it", *(f"{cpu[process] - total:.2f}" for process, total in sums.items())])
    headings = list(held)
    yield from (*markdown_table(("category", *headings), rows), "")
