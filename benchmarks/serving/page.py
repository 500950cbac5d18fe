"""docs/results/serving.md, serving.json and the picture.

    python -m benchmarks.serving.page

writes page and picture anew from docs/results/serving.json, whose figures stay what they are.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.encoder_precision import markdown_table
from benchmarks.report import RESULTS, heading, machine
from benchmarks.serving.figures import GOALS
from benchmarks.serving.page_losses import losses
from benchmarks.serving.page_words import losses_in_words
from benchmarks.serving.plot import SYSTEMS, draw
from benchmarks.serving.scale import CLIENTS, IDENTICAL_UPLOADS, MANY_CLIENTS
from benchmarks.serving.statistics import name_value_lines

HOW = """\
Each system runs alone on this machine, with the same weights, photos and embeddings, and is stopped before the next
one starts. Clients run in one asyncio process on the same machine; each sends its next photo when its last one is
answered. Raw engine: decode, the release's runtime and the release's index in a plain loop, no server, all cores.
Lookalike: the Procfile's processes with default settings, `POST /v1/searches` with `Prefer: wait=30`; *cold* means
`Cache-Control: no-cache`, which bypasses every cache. LitServe: Lookalike's decoder, encoder and index files with
LitServe's server and its batching. Flask: Pillow and torch eager in synchronous gunicorn workers, the same index.
Celery: a Flask endpoint that waits for a prefork worker's result, otherwise like Flask. Of these three each setting
below was tried at 32 clients, and the fastest was measured. This machine's speed changes within minutes, so the ratios
of the goals come from windows in turn, Lookalike's and the other's, while both are up and the one that is not asked
is stopped; the tables further down were measured one system after the other."""


def write_results(run: Mapping[str, Any], out: Path) -> Path:
    """Write all three files below `out` and return the page's path."""
    results, images = out / "results", out / "images"
    results.mkdir(parents=True, exist_ok=True)
    draw(run["encoders"], images / "serving.png")
    record = {**_described(), **run}  # a record that is read again has been described already
    text = json.dumps(record, indent=1, default=str) + "\n"
    page = results / "serving.md"
    for path, content in ((results / "serving.json", text), (page, "\n".join(lines(record)) + "\n")):
        aside = path.with_name(f".{path.name}.part")
        aside.write_text(content, encoding="utf-8")
        aside.replace(path)
    return page


def _described() -> dict[str, Any]:
    revision = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    command = " ".join(["python -m benchmarks.serving", *sys.argv[1:]])
    told = heading("Serving: what a search costs, and where that goes", "benchmarks.serving")
    described = {"heading": told, "machine": machine(), "cores": os.cpu_count() or 1}
    return {**described, "revision": revision, "command": command}


def lines(run: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the page of a described run."""
    yield run["heading"]
    yield f"{run['sources']}. {run['minutes']:.0f} minutes, {_repetitions(run)}."
    yield ""
    for backbone, told in run["weights"].items():
        yield f"- {backbone}: {told}."
    yield from ("", HOW, "", "![Searches a second, and where the time goes](../images/serving.png)", "")
    yield from ("## Goals", "", *_goals(run["figures"]), "")
    for backbone, measured in run["encoders"].items():
        yield from (f"## {backbone}", "", *_systems(measured), *_runtimes(measured), *_ours(measured))
    yield from losses(run["encoders"])
    yield from losses_in_words(run["encoders"], run["cores"])
    yield from ("## All figures", "", "```text", *name_value_lines(run["figures"]), "```")


def _repetitions(run: Mapping[str, Any]) -> str:
    scale = run["scale"]
    windows = f"{scale['repetitions']} windows of {scale['seconds']:g} s"
    return f"medians of {windows} after {scale['warmup_seconds']:g} s of warm-up"


def _goals(figures: Mapping[str, float]) -> Iterator[str]:
    rows = []
    for goal in GOALS:
        if goal.figure in figures:
            value = figures[goal.figure]
            wish = f"{'<=' if goal.is_most else '>='} {goal.limit:g}"
            told = "reached" if goal.is_reached(value) else "**not reached**"
            rows.append([f"`{goal.figure}`", goal.text, wish, f"{value:.3g}", told])
    yield from markdown_table(("figure", "what", "goal", "measured", ""), rows)


def _systems(measured: Mapping[str, Any]) -> Iterator[str]:
    headings = ("system", "clients", "searches/s", "p50 ms", "p95 ms", "p99 ms", "CPU ms per search", "load CPU")
    raw = measured["raw"]["loop"]
    rows = [["raw engine", "-", *_latency_cells(raw), "-", "-"]]
    for name, system in _measured_systems(measured).items():
        for count in CLIENTS:
            window = system["clients"][str(count)]
            cpu = ", ".join(f"{part} {used:.1f}" for part, used in window["cpu_ms"].items() if used >= 0.05)
            rows.append([SYSTEMS[name][0], str(count), *_latency_cells(window), cpu, f"{window['cpu_share']:.2f}"])
    yield from markdown_table(headings, rows)
    yield ""
    for name, system in _measured_systems(measured).items():
        text = f"- {SYSTEMS[name][0]}: its answers hold {system['same_items']:.1%} of the raw engine's items"
        if "variant" in system:
            tried = ", ".join(f"{label}: {rate:.0f}/s" for label, rate in system["tried"].items())
            text += f"; measured with {system['variant']} (tried: {tried or 'no other'})"
        yield f"{text}."
    yield ""


def _measured_systems(measured: Mapping[str, Any]) -> dict[str, Any]:
    return {"lookalike": measured["lookalike"]["cold"], **measured["rivals"]}


def _latency_cells(window: Mapping[str, float]) -> list[str]:
    return [f"{window['rate']:.1f}", *(f"{window[name]:.1f}" for name in ("p50", "p95", "p99"))]


def _runtimes(measured: Mapping[str, Any]) -> Iterator[str]:
    eager, raw = measured["torch_eager"], measured["raw"]
    rows = [
        ["torch eager", f"{eager['eager_batch_8']:.0f}", f"{1000 / eager['eager_batch_1']:.1f}"],
        ["torch, channels last", f"{eager['channels_last_batch_8']:.0f}", "-"],
        [f"{raw['runtime']} (serves)", f"{raw['forward_batch_8']:.0f}", f"{raw['forward_ms']['p50']:.1f}"],
    ]
    yield from markdown_table(("runtime", "images/s at batch 8", "ms of one image"), rows)
    yield ""
    tried = []
    for trial in measured["release"]["encoder"].get("gate", {}).get("tried", []):
        accuracy = trial.get("accuracy") or {}
        cells = [trial["runtime"], "passed" if trial["passed"] else f"refused: {trial['reason']}"]
        for name in ("mean_cosine", "min_cosine", "precision", "reference_precision"):
            value = accuracy.get(name)
            cells.append("-" if value is None else f"{value:.4f}")
        tried.append(cells)
    yield "The accuracy gate, as the release's manifest tells it:"
    yield ""
    headings = ("runtime", "gate", "mean cosine", "least cosine", "Precision@5", "of torch")
    yield from (*markdown_table(headings, tried), "")
    yield f"Similar hits count from cosine {measured['release']['similar']['min_cosine']}."
    yield ""


def _ours(measured: Mapping[str, Any]) -> Iterator[str]:
    ours = measured["lookalike"]
    rows = [
        [f"exact repeat, {count} client{'s' if count != '1' else ''}", *_latency_cells(window), _origins(window)]
        for count, window in ours["repeats"].items()
    ]
    kinds = {
        "exact": "exact repeat, each photo once, 1 client",
        "similar": "photo compressed again, 1 client",
        "embedding": "known photo, other k, 1 client",
    }
    rows += [
        [text, *_latency_cells(ours["cache_hits"][kind]), _origins(ours["cache_hits"][kind])]
        for kind, text in kinds.items()
    ]
    flight, many = ours["single_flight"], ours["many_clients"]
    rows.append([f"{IDENTICAL_UPLOADS} identical uploads at once", *_latency_cells(flight), _origins(flight)])
    rows.append([f"cold, {MANY_CLIENTS} clients", *_latency_cells(many), _origins(many)])
    yield from markdown_table(("caches and crowds", "searches/s", "p50 ms", "p95 ms", "p99 ms", "answered from"), rows)
    yield ""
    bulk, start = ours["bulk"], ours["cold_start"]
    together = bulk["together"]
    kept, calibrated = 10 * ours["cache_hits"]["similar_kept"], measured["release"]["similar"]
    yield (
        f"- Answers to photos that were compressed again hold {kept:.2f} of a fresh answer's 10 items on average. The "
        f"threshold, {calibrated['min_cosine']}, is that of the release: the lowest whose hits hold "
        f"{10 * calibrated['wanted_overlap']:.0f} of 10 for altered photos of the catalogue; these here are photos of "
        f"the street."
    )
    yield (
        f"- While {MANY_CLIENTS} clients wait, `/healthz` is answered by the same gunicorn worker within "
        f"{many['healthz_p95']:.0f} ms (p95 of {many['healthz_probes']})."
    )
    yield (
        f"- Bulk import: {_images_in_seconds(bulk['alone'])}, {_rates(bulk['rates'])} a second from request to last "
        f"commit; the raw engine embeds {_rates(bulk['raw_rates'])} a second just before and after."
    )
    yield (
        f"- A lone search takes {together['search']['p50']:.1f} ms (p95 {together['search']['p95']:.1f}; just before "
        f"and after {bulk['idle']['p50']:.1f}, p95 {bulk['idle']['p95']:.1f}) while "
        f"an import runs{'' if together['covered'] else ', which ended before the searches did'}; "
        f"that import embeds {together['import']['embedded'] / together['import']['seconds']:.0f} images a second."
    )
    yield (
        f"- The search worker's first answer comes {start['seconds']:.2f} s after the start of its process; its peak "
        f"memory is {start['peak_mib']:.0f} MiB then, {ours['busy_peak_mib']:.0f} MiB after all searches."
    )
    redis = ours["redis"]
    calls = ", ".join(f"{name} {count:.1f}" for name, count in redis["calls"].items())
    traffic = f"reads {redis['bytes_in'] / 1024:.1f} KiB and writes {redis['bytes_out'] / 1024:.1f} KiB"
    yield f"- Redis runs {redis['commands']:.1f} commands per cold search ({calls}), {traffic}."
    seconds = [f"{ours['build_s']:.0f} s from {ours['first_import']['rows']:,} items"]
    seconds += [f"{ours['rebuild_s']:.0f} s from all"] if "rebuild_s" in ours else []
    yield f"- Building the release took {', '.join(seconds)}."
    yield ""


def _images_in_seconds(imports: Sequence[Mapping[str, Any]]) -> str:
    return " and ".join(f"{done['embedded']:,} images in {done['committed_s']:.1f} s" for done in imports)


def _rates(rates: Sequence[float]) -> str:
    return " and ".join(f"{rate:.0f}" for rate in rates)


def main() -> None:
    """Write the page anew."""
    record = json.loads((RESULTS / "serving.json").read_text(encoding="utf-8"))
    sys.stdout.write(f"{write_results(record, RESULTS.parent)}\n")


def _origins(window: Mapping[str, Any]) -> str:
    found: Sequence[str] = [f"{name} {count:g}" for name, count in window["answered_from"].items()]
    return ", ".join(found)


if __name__ == "__main__":
    main()
