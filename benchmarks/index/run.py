"""One run: vectors, our kinds of index, the exact one, other libraries, filters, opening, swapping."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import faiss
import numpy as np
from rich.console import Console

from benchmarks.index.dimension import intrinsic_dimension
from benchmarks.index.embeddings import DIM, read_embeddings
from benchmarks.index.growth import BLOCK, NEIGHBOURS, SPREAD, grown
from benchmarks.index.latency import Engine, Judge, K, Point, best_scores, fastest
from benchmarks.index.opening import opened_alone
from benchmarks.index.rivals import EFFORTS, Hnswlib, Usearch
from benchmarks.index.swapping import swap
from worker.index.approximate_index import ApproximateIndex
from worker.index.arguments import QueryArguments
from worker.index.flat_index import FlatIndex
from worker.index.kinds import KINDS
from worker.index.recipe import IndexRecipe, RecallNotReached
from worker.index.snapshot import Snapshot, Snapshots
from worker.index.vector_index import Page, ReadableIndex, Rows, Vectors

ENCODER = "bench"
TARGET = 0.99
LARGE_ROWS = 200_000  # from there on only our own choice is built: the others take hours, or all the memory
QUERIES, FLAT_QUERIES, FILTER_QUERIES = 1000, 60, 200  # the photos beyond are what ours is tuned with
TURNS = 5
SHARES = (0.001, 0.01, 0.1, 0.5, 1.0)
OTHER_ROWS = 10_000_000  # what is added to the ids of the second base, so that none is in both


class Run:
    """Measures everything on one set of vectors."""

    def __init__(self, datasets: Path, state: Path, rows: int, recipe: IndexRecipe, console: Console) -> None:
        """Args:
        datasets: the folder that has `fashion`.
        state: a folder for vectors and indexes.
        rows: how many vectors.
        recipe: what is asked of our index.
        console: for progress.
        """
        self._recipe = recipe
        self._is_large = rows >= LARGE_ROWS
        self._state = state
        self._console = console
        embeddings = read_embeddings(datasets, state, console)
        self._queries = embeddings.queries[:QUERIES]
        self._tuning_queries = embeddings.queries[QUERIES:]
        self._vectors = grown(embeddings.catalogue, rows, state)
        self._truth = best_scores(self._queries, self._vectors)
        self._judge = Judge(self._vectors, self._queries, self._truth)
        self.data: dict[str, Any] = {
            "rows": rows,
            "recipe": recipe.to_dict(),
            "dim": DIM,
            "source": embeddings.source,
            "real_rows": len(embeddings.catalogue),
            "queries": len(self._queries),
            "tuning_queries": len(self._tuning_queries),
            "energy": embeddings.energy,
            "neighbours": NEIGHBOURS,
            "spread": SPREAD,
            "dimension": {
                "real rows": intrinsic_dimension(embeddings.catalogue),
                "photos among real rows": intrinsic_dimension(embeddings.catalogue, self._queries),
                "grown rows": intrinsic_dimension(self._vectors),
                "photos among grown rows": intrinsic_dimension(self._vectors, self._queries),
            },
        }
        np.save(state / "queries.npy", self._queries)

    def measure(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        chosen = self._build("chosen", self._recipe)
        measured: dict[str, Any] = {"data": self.data, "exact": self._exact(), "chosen": self._described(chosen)}
        folder = self._state / "indexes" / "chosen"
        measured["opening"] = opened_alone(folder, ENCODER, DIM, self._state / "queries.npy")
        measured["disk_bytes"] = disk_bytes(folder)
        measured["filters"] = self._filters(chosen.index)
        measured["curve"] = [asdict(point) for point in self._curve(chosen)]
        if not self._is_large:
            measured["swaps"] = self._swaps(chosen)
        measured["kinds"] = {} if self._is_large else {kind: self._kind(kind, measured["chosen"]) for kind in KINDS}
        measured["rivals"] = {} if self._is_large else dict(self._rivals(self._engine(chosen.index)))
        return measured

    def _say(self, what: str) -> None:
        self._console.print(what, highlight=False)

    def _pages(self, first_row: int = 0) -> Iterator[Page]:
        for start in range(0, len(self._vectors), BLOCK):
            rows = np.arange(start, min(start + BLOCK, len(self._vectors)))
            hashes = np.zeros((len(rows), 32), np.uint8)
            hashes[:, :8] = rows[:, None].view(np.uint8)
            yield rows + first_row, hashes, self._vectors[rows]

    def _build(self, name: str, recipe: IndexRecipe, first_row: int = 0) -> Snapshot:
        self._say(f"Building {name}")
        folder = self._state / "indexes" / name
        shutil.rmtree(folder, ignore_errors=True)
        snapshots = Snapshots(folder, ENCODER, DIM, recipe, kept=1)
        snapshot = snapshots.write(self._pages(first_row), len(self._vectors), self._tuning_queries)
        self._say(f"  {snapshot.described.get('factory', 'Flat')} {snapshot.described.get('measured')}")
        return snapshot

    def _engine(self, index: ReadableIndex, **how: Any) -> Engine:
        def search(query: Vectors) -> Rows:
            rows: Rows = index.search(query, K, **how).rows[0]
            return rows

        return search

    def _described(self, snapshot: Snapshot) -> dict[str, Any]:
        """Return what the manifest tells, and what test photos find."""
        arguments = snapshot.described["arguments"]
        point = self._judge.judge(str(arguments), self._engine(snapshot.index))
        self._say(f"  photos: {point}")
        return {**snapshot.described, "photos": asdict(point)}

    def _exact(self) -> dict[str, Any]:
        self._say("Exact search")
        flat = faiss.IndexFlatIP(DIM)
        flat.add(self._vectors)

        def search(query: Vectors, flat: Any = flat) -> Rows:
            faiss.omp_set_num_threads(os.cpu_count() or 1)
            rows: Rows = flat.search(query, K)[1][0]
            return rows

        point = self._judge.judge("FAISS Flat, all threads", search, FLAT_QUERIES)
        del flat, search
        ours = FlatIndex(DIM)
        ours.add(np.arange(len(self._vectors)), self._vectors)
        own = self._judge.judge("our exact index", self._engine(ours), FLAT_QUERIES)
        self._say(f"  {point}\n  {own}")
        return {"faiss": asdict(point), "own": asdict(own)}

    def _curve(self, snapshot: Snapshot) -> Iterator[Point]:
        index = snapshot.index
        assert isinstance(index, ApproximateIndex)  # noqa: S101
        rerank = index.arguments.rerank
        for effort in index.efforts(index.arguments.depth(K)):
            engine = self._engine(index, arguments=QueryArguments(effort, rerank))
            yield self._judge.judge(f"effort {effort}, re-rank {rerank}", engine)

    def _kind(self, name: str, chosen: dict[str, Any]) -> dict[str, Any]:
        factory = KINDS[name].factory(len(self._vectors), DIM)
        if factory == chosen["factory"]:
            return chosen
        try:
            return self._described(self._build(name, IndexRecipe(TARGET, factory=factory)))
        except RecallNotReached as error:
            self._say(f"  {error}")
            return {"factory": factory, "refused": str(error)}
        finally:
            shutil.rmtree(self._state / "indexes" / name, ignore_errors=True)

    def _rivals(self, ours: Engine) -> Iterator[tuple[str, dict[str, Any]]]:
        """Measure each setting of each; the fastest that reaches the target again, in turn with our index."""
        makers: list[Callable[[], Hnswlib | Usearch]] = [partial(Hnswlib, self._vectors)]
        makers += [partial(Usearch, self._vectors, dtype) for dtype in ("f32", "f16", "i8")]
        for make in makers:
            rival = make()
            points = {}
            for effort in EFFORTS:
                points[effort] = self._judge.judge(f"effort {effort}", rival.at(effort))
                self._say(f"{rival.name}: {points[effort]}")
            best = fastest(points.values(), TARGET)
            turns = []
            if best is not None:
                engine = rival.at(next(effort for effort, point in points.items() if point == best))
                turns = self._in_turn(engine, ours)
                self._say(f"  in turn with ours, ms: {turns}")
            yield (
                rival.name,
                {
                    "build_seconds": rival.build_seconds,
                    "points": [asdict(point) for point in points.values()],
                    "best": None if best is None else asdict(best),
                    "in_turn_ms": turns,
                },
            )

    def _in_turn(self, theirs: Engine, ours: Engine) -> list[tuple[float, float]]:
        """Return medians of both in ms, one round after the other: the machine changes its speed within minutes."""
        return [
            (self._judge.judge("", theirs, rounds=1).p50_ms, self._judge.judge("", ours, rounds=1).p50_ms)
            for _ in range(TURNS)
        ]

    def _filters(self, index: ReadableIndex) -> list[dict[str, Any]]:
        """Measure each share of allowed rows, chosen at random and as the nearest of one row.

        Before each, the same photos search without a filter: `plain_ms` is that median.
        """
        self._say("Filters")
        random = np.random.default_rng(5)
        queries = self._queries[:FILTER_QUERIES]
        similarity = self._vectors @ self._vectors[len(self._vectors) // 3]
        by_similarity = np.argsort(-similarity)
        table = []
        for share in SHARES:
            count = round(share * len(self._vectors))
            for how, rows in (
                ("at random", random.choice(len(self._vectors), count, replace=False)),
                ("alike", by_similarity[:count]),
            ):
                allowed = np.sort(rows).astype(np.int64)
                allowed.flags.writeable = False  # as worker/filtered_rows.py gives it to all searches of a filter
                judge = Judge(self._vectors, queries, best_scores(queries, self._vectors[allowed]))
                plain = judge.judge("", self._engine(index))
                point = judge.judge("", self._engine(index, allowed=allowed))
                table.append({"share": share, "how": how, "rows": count, "plain_ms": plain.p50_ms, **asdict(point)})
                self._say(f"  {table[-1]}")
        return table

    def _swaps(self, chosen: Snapshot) -> dict[str, Any]:
        self._say("Swapping")
        factory = KINDS["ivf-sq"].factory(len(self._vectors), DIM)
        start = perf_counter()
        other = self._build("other", IndexRecipe(0.5, factory=factory), OTHER_ROWS)
        seconds = perf_counter() - start
        swapped = asdict(swap(chosen.index, other.index, self._queries))
        self._say(f"  {swapped}")
        return {**swapped, "other_build_seconds": seconds}


def disk_bytes(folder: Path) -> int:
    """Return the size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def figures(measured: dict[str, Any]) -> dict[str, float]:
    """Return the named figures of a run."""
    data, chosen, opening = measured["data"], measured["chosen"], measured["opening"]
    photos, p50 = chosen["photos"], chosen["photos"]["p50_ms"]
    flat_bytes = 4 * data["rows"] * data["dim"]
    found = {
        "recall_at_10": photos["recall"],
        "p50_ms": p50,
        "p95_ms": photos["p95_ms"],
        "tuned_recall_at_10": chosen["measured"]["recall_at_10"],
        "flat_p50_ms": measured["exact"]["faiss"]["p50_ms"],
        "speedup_vs_flat": measured["exact"]["faiss"]["p50_ms"] / p50,
        "speedup_vs_own_exact": measured["exact"]["own"]["p50_ms"] / p50,
        "resident_ratio": (opening["own"] + opening["codes"]) / flat_bytes,
        "mapped_vectors_ratio": opening["vectors"] / flat_bytes,
        "bytes_per_vector": chosen["measured"]["bytes_per_row"],
        "load_s": opening["load_s"],
        "build_s": chosen["measured"]["build_seconds"],
        "worst_filtered_recall": min(row["recall"] for row in measured["filters"]),
        "worst_filtered_slowdown": max(row["p50_ms"] / row["plain_ms"] for row in measured["filters"]),
    }
    if "swaps" in measured:
        found["swap_failures"] = measured["swaps"]["failures"]
    if data["rows"] >= 10**6:
        found["million_recall_at_10"], found["million_p50_ms"] = photos["recall"], p50
        found["million_bytes_per_vector"] = (opening["own"] + opening["codes"]) / data["rows"]
    for library in ("usearch", "hnswlib"):
        ratios = [
            median(theirs / ours for theirs, ours in rival["in_turn_ms"])
            for name, rival in measured["rivals"].items()
            if name.startswith(library) and rival["best"]
        ]
        if ratios:
            found[f"vs_{library}"] = min(ratios)
    return found
