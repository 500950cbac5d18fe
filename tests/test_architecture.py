"""The rules of the house that no single module can keep by itself."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What each package may import of ours. `benchmarks` measures all of it, `chaos` breaks it, and tests test all of it.
MAY_IMPORT: dict[str, set[str]] = {
    "shared": set(),
    "web": {"shared"},
    "worker": {"shared"},
    "training": {"worker", "shared"},
    "client": set(),
    "demo": {"client", "shared"},
}
HEAVY = ("torch", "torchvision", "timm", "openvino", "nncf", "faiss", "numpy", "pandas")
# Not even numpy and Pillow: beat, the callbacks worker and each health check import worker.app and need none of these.
HEAVY_FOR_WORKERS = (*HEAVY, "PIL", "pyarrow", "safetensors", "flask")

MAX_LINES = 250
# Longer ones that were looked at again, and why each is better in one piece.
LONGER = {
    "shared/errors.py": "one tree, drawn in its docstring, and 50 classes of three lines",
    "shared/jobs.py": "the key map of job records stands at the head of the only module that touches these keys",
    "shared/schemas.py": "the wire contract in one place",
    "shared/settings.py": "one field and one sentence for each setting",
    "training/sample_drawing.py": "drawing commands, one function a garment",
}
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "core", "misc", "tools", "stuff", "lib"}

# Where a process is started, its environment is made of our own one; and nothing else reads the environment.
ENVIRONMENT_READERS = {"shared/settings.py", "demo/processes.py"}
# These name a class of errors, and never make or read a pickle.
PICKLE_NAMES = {("worker/encoder/weights.py", "UnpicklingError"), ("training/checkpoint.py", "UnpicklingError")}

ANSWERS = {200, 201, 202, 204, 304}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def all_modules() -> list[Path]:
    return [path for package in MAY_IMPORT for path in modules(package)]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(), filename=str(path))))


def imported(path: Path) -> Iterator[str]:
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno} imports relatively"
            yield node.module or ""


def named_by(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(path)}


def loaded_modules(code: str, folder: Path) -> set[str]:
    """Run code in a fresh interpreter and return the top names of what it then holds."""
    # Nobody listens there: whatever is created must not need a server to be created.
    environment = {"PATH": os.environ["PATH"], "REDIS_URL": "redis://127.0.0.1:9/0"}
    environment |= {"DATABASE_URL": f"sqlite:///{folder}/x.sqlite3", "LOOKALIKE_STORE_URL": str(folder / "store")}
    script = f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_those_below_it(package: str) -> None:
    assert modules(package), f"no modules in {package}/"
    strangers = set(MAY_IMPORT) - MAY_IMPORT[package] - {package} | {"tests", "benchmarks", "chaos"}
    found = {(name_of(path), name) for path in modules(package) for name in imported(path)}
    assert not [entry for entry in sorted(found) if entry[1].partition(".")[0] in strangers]


def test_the_web_tier_names_no_heavy_module() -> None:
    named = {name.partition(".")[0] for path in (*modules("web"), *modules("shared")) for name in imported(path)}
    assert not named & set(HEAVY)
    assert "sqlalchemy" in named


def test_the_web_tier_stays_light_and_starts_without_any_server(tmp_path: Path) -> None:
    loaded = loaded_modules("from web.app import create_app\ncreate_app()", tmp_path)
    assert not loaded & set(HEAVY)
    assert {"web", "shared", "flask"} <= loaded


def test_workers_load_nothing_heavy_before_a_task_needs_it(tmp_path: Path) -> None:
    loaded = loaded_modules("from worker.app import app\nassert 'search' in app.tasks", tmp_path)
    assert not loaded & set(HEAVY_FOR_WORKERS)
    assert {"worker", "shared", "celery"} <= loaded


def test_only_the_settings_read_the_environment() -> None:
    words = {"environ", "environb", "getenv", "getenvb", "putenv"}
    readers = set()
    for path in all_modules():
        for node in nodes(path):
            if isinstance(node, ast.Attribute):
                is_request = ast.unparse(node.value) == "request"  # the WSGI environment is another thing
                if node.attr in words and not is_request:
                    readers.add(name_of(path))
            elif isinstance(node, ast.ImportFrom) and words & {alias.name for alias in node.names}:
                readers.add(name_of(path))
    assert readers <= ENVIRONMENT_READERS


def test_images_are_decoded_in_workers_alone() -> None:
    """Both tiers read headers; only the worker, which is started again when it dies, lets a decoder at the pixels."""
    openers = {name_of(path) for package in ("web", "shared") for path in modules(package) if "PIL" in named_by(path)}
    assert openers == {"shared/image_header.py", "shared/image_metadata.py"}
    decoding = {"load", "verify", "convert", "draft", "seek", "tobytes", "transpose", "resize", "thumbnail", "crop"}
    for name in openers:
        called = {node.attr for node in nodes(ROOT / name) if isinstance(node, ast.Attribute)}
        assert not called & decoding, name
    assert "decode" in {path.stem for path in modules("worker")}


def test_nothing_is_pickled() -> None:
    found = set()
    for path in all_modules():
        for node in nodes(path):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if node.value.id in {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}:
                    found.add((name_of(path), node.attr))
                if node.attr in {"read_pickle", "to_pickle"}:
                    found.add((name_of(path), node.attr))
            elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                found.add((name_of(path), node.arg))
        pickles = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
        found |= {
            (name_of(path), f"from {node.module}")
            for node in nodes(path)
            if isinstance(node, ast.ImportFrom) and node.module in pickles
        }
    assert found <= PICKLE_NAMES


def test_torch_reads_weights_only() -> None:
    loads = [
        (name_of(path), {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords})
        for path in all_modules()
        for node in nodes(path)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"torch.load", "torch.hub.load", "torch.jit.load"}
    ]
    assert loads, "torch.load is called nowhere: this test looks for the wrong thing"
    assert not [name for name, keywords in loads if keywords.get("weights_only") != "True"]


def test_no_module_is_too_long_without_a_reason() -> None:
    longer = {name_of(path): len(path.read_text().splitlines()) for path in all_modules()}
    longer = {name: lines for name, lines in longer.items() if lines > MAX_LINES}
    assert longer.keys() == LONGER.keys(), longer


def test_every_name_says_what_is_inside() -> None:
    names = {part for path in all_modules() for part in path.relative_to(ROOT).with_suffix("").parts}
    assert not names & VAGUE_NAMES


def _statuses(path: Path) -> Iterator[tuple[int, int]]:
    """Yield (line, number) of every HTTP status that a module of web names as a number."""
    for node in nodes(path):
        places: list[ast.expr | None] = []
        if isinstance(node, ast.keyword):
            places += [node.value] if node.arg in {"status", "status_code", "code"} else []
        elif isinstance(node, ast.Assign):
            places += [node.value for target in node.targets if ast.unparse(target).endswith("status_code")]
        elif isinstance(node, ast.Compare) and ast.unparse(node.left).endswith(("status", "status_code")):
            places += node.comparators
        elif isinstance(node, ast.Dict):
            places += [*node.keys, *node.values]
        elif isinstance(node, ast.Tuple):
            places += node.elts
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("abort"):
            places += node.args
        for place in places:
            for inner in ast.walk(place) if place else ():
                is_number = isinstance(inner, ast.Constant) and type(inner.value) is int
                if is_number and 100 <= inner.value < 600:  # type: ignore[attr-defined]
                    yield inner.lineno, inner.value  # type: ignore[attr-defined]


def test_only_web_errors_names_the_statuses_of_failures() -> None:
    found = {(name_of(path), *status) for path in modules("web") for status in _statuses(path)}
    named = {status for name, _, status in found if name == "web/errors.py"}
    assert {404, 413, 415, 422, 503} <= named, "this test looks for the wrong thing"
    assert not sorted(entry for entry in found if entry[0] != "web/errors.py" and entry[2] not in ANSWERS)
