import json
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from rich.progress import Progress as Bars
from safetensors.torch import load_file

from tests.small_shop import FEATURES, Small, small_backbone, small_plan, write_shop
from tests.stack import wait_until
from training.checkpoint import load_checkpoint
from training.export import export_run
from training.export import main as export
from training.loop import Progress, first_stage_at, rate_at
from training.losses import LOSSES
from training.plan import Plan, read_plan
from training.problem import TrainingProblem
from training.run import run
from training.run_folder import RunFolder
from training.train import main
from training.turns import Turns

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(autouse=True)
def _small(tmp_path: Path) -> Iterator[None]:
    with small_backbone(tmp_path):
        yield


def train(
    plan: Plan, folder: Path, *, resumes: bool = False, stop_after: int | None = None, at_step: object = None
) -> tuple[Progress, list[str]]:
    said: list[str] = []

    def shown(step: str) -> object:
        def tell(done: int, total: int) -> None:
            if callable(at_step) and step.startswith("Epoch"):
                at_step(step, done)

        return tell

    progress = run(
        plan,
        RunFolder(folder),
        folder.parent / "cache",
        resumes=resumes,
        turns=Turns(),
        device=CPU,
        shown=shown,  # type: ignore[arg-type]
        said=said.append,
        stop_after=stop_after,
    )
    return progress, said


def weights(folder: Path, name: str = "checkpoint.pt") -> dict[str, torch.Tensor]:
    state = load_checkpoint(folder / name)
    return state["model"] if name == "best.pt" else state["learner"]["model"]


@contextmanager
def full_disk(largest_bytes: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes: write() fails as on a full disk."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def assert_equal_runs(one: Path, other: Path) -> None:
    for name in ("checkpoint.pt", "best.pt"):
        first, second = weights(one, name), weights(other, name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    untimed = [
        [
            {name: value for name, value in line.items() if not name.endswith("seconds")}
            for line in RunFolder(folder).figures()
        ]
        for folder in (one, other)
    ]
    assert untimed[0] == untimed[1]
    assert (one / "steps.jsonl").read_text() == (other / "steps.jsonl").read_text()


def test_a_run_learns_and_leaves_all_that_its_folder_promises(table: Path, tmp_path: Path) -> None:
    progress, said = train(small_plan(table, epochs=8, patience=8), tmp_path / "run")
    lines = RunFolder(tmp_path / "run").figures()
    assert [line["epoch"] for line in lines] == list(range(1, 9))
    assert lines[-1]["loss"] < lines[0]["loss"] > 0
    assert progress.best == max(line["p_at_5"] for line in lines)
    assert progress.best > 0.5  # four kinds: chance gives 0.25
    assert len(said) == 8
    for name in ("config.json", "metrics.csv", "metrics.jsonl", "steps.jsonl", "checkpoint.pt", "best.pt", "plots.png"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    about = json.loads((tmp_path / "run" / "config.json").read_text())
    assert about["classes"]["article_type"] == ["bar", "cross", "disc", "ring"]
    assert len(about["data_fingerprint"]) == 64
    for name in ("active_triplets", "hardest_positive", "hardest_negative", "spread", "colour_at_5", "map_at_r"):
        assert name in lines[0]
    steps = [json.loads(line) for line in (tmp_path / "run" / "steps.jsonl").read_text().splitlines()]
    assert [step["epoch"] for step in steps] == sorted(step["epoch"] for step in steps)
    first = [step["hardest_negative"] for step in steps if step["epoch"] == 1]
    assert sum(first) / len(first) == pytest.approx(lines[0]["hardest_negative"])


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"average": 0.9},
        {"views": 2, "first_stage": 1},
        {"unfreeze_at": (1,), "first_stage": 1},
        {"more_sizes": (20,), "prefixes": (8, 4)},
        {"views": 3, "first_stage": 1, "more_sizes": (20,)},
    ],
)
def test_a_resumed_run_is_bit_for_bit_the_run_that_was_not_stopped(
    table: Path, tmp_path: Path, how: dict[str, object]
) -> None:
    plan = small_plan(table, **how)
    train(plan, tmp_path / "whole")
    train(plan, tmp_path / "parts", stop_after=1)
    train(read_plan(tmp_path / "parts" / "config.json"), tmp_path / "parts", resumes=True, stop_after=1)
    train(read_plan(tmp_path / "parts" / "config.json"), tmp_path / "parts", resumes=True)
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


def test_ctrl_c_in_an_epoch_loses_no_finished_epoch(table: Path, tmp_path: Path) -> None:
    plan = small_plan(table)

    def press(step: str, done: int) -> None:
        if step.startswith("Epoch 3") and done == 2:
            raise KeyboardInterrupt

    train(plan, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path / "stopped", at_step=press)
    assert load_checkpoint(tmp_path / "stopped" / "checkpoint.pt")["progress"]["epoch"] == 2
    train(plan, tmp_path / "stopped", resumes=True)
    assert_equal_runs(tmp_path / "whole", tmp_path / "stopped")


def test_ctrl_c_in_the_first_epoch_leaves_a_run_that_begins_anew(table: Path, tmp_path: Path) -> None:
    plan = small_plan(table)

    def press(step: str, done: int) -> None:
        if step.startswith("Epoch 1") and done == 2:
            raise KeyboardInterrupt

    train(plan, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path / "stopped", at_step=press)
    with (tmp_path / "stopped" / "steps.jsonl").open("a") as steps:
        steps.write('{"epoch": 1, "st')  # a kill in the middle of a line
    train(plan, tmp_path / "stopped", resumes=True)
    assert_equal_runs(tmp_path / "whole", tmp_path / "stopped")


def test_a_full_disk_at_the_first_checkpoint_leaves_a_run_that_begins_anew(table: Path, tmp_path: Path) -> None:
    plan = small_plan(table)
    train(plan, tmp_path / "whole")
    folder = tmp_path / "run"
    with full_disk(8000), pytest.raises(TrainingProblem, match=r"best\.pt can't be written"):
        train(plan, folder)
    assert not (folder / "checkpoint.pt").exists()
    train(plan, folder, resumes=True)
    assert_equal_runs(tmp_path / "whole", folder)


def test_a_full_disk_is_told_and_the_epoch_before_is_kept(table: Path, tmp_path: Path) -> None:
    plan = small_plan(table)
    train(plan, tmp_path / "run", stop_after=1)
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    with (
        full_disk(len(before) // 2),
        pytest.raises(TrainingProblem, match=r"can't be written.*free some space .*--resume"),
    ):
        train(plan, tmp_path / "run", resumes=True)
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before
    assert not list((tmp_path / "run").glob(".*"))
    train(plan, tmp_path / "run", resumes=True)
    train(plan, tmp_path / "whole")
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_a_loss_that_is_no_number_is_told_with_its_place(table: Path, tmp_path: Path) -> None:
    broken = {name: t * float("nan") if t.is_floating_point() else t for name, t in Small().state_dict().items()}
    torch.save(broken, tmp_path / "nan.pth")
    with pytest.raises(TrainingProblem, match=r"became nan in step 1 of epoch 1 .*lower --rate"):
        train(small_plan(table, weights=str(tmp_path / "nan.pth")), tmp_path / "run")


def test_a_gradient_that_is_no_number_is_told_and_loses_no_finished_epoch(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOSSES, "breaks", LOSSES["multi-similarity"])
    plan = small_plan(table, losses={"breaks": 1.0})
    train(plan, tmp_path / "run", stop_after=1)
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()

    class Rootless(torch.nn.Module):
        def forward(self, embeddings: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
            return (embeddings - embeddings.detach()).abs().sqrt().sum()  # 0, with a gradient of 0 x infinity

    monkeypatch.setitem(LOSSES, "breaks", lambda *_: Rootless())
    with pytest.raises(TrainingProblem, match=r"A gradient became no finite number in step 1 of epoch 2"):
        train(plan, tmp_path / "run", resumes=True)
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before


def test_training_stops_when_val_gets_no_better(table: Path, tmp_path: Path) -> None:
    progress, _ = train(small_plan(table, rate=1e-9, tracks_statistics=False, epochs=9, patience=2), tmp_path / "run")
    assert (progress.epoch, progress.best_epoch) == (3, 1)


def test_test_photos_are_not_even_read(table: Path, tmp_path: Path) -> None:
    copy = write_shop(tmp_path / "shop")
    for number in range(120):
        if number // 12 % 5 == 4:
            (copy.parent / "images" / f"{number}.png").unlink()
    train(small_plan(copy, epochs=1), tmp_path / "without")
    train(small_plan(table, epochs=1), tmp_path / "with")
    assert_equal_runs(tmp_path / "with", tmp_path / "without")


def test_other_photos_than_the_run_was_begun_with_are_refused(tmp_path: Path) -> None:
    copy = write_shop(tmp_path / "shop", 60)
    train(small_plan(copy, epochs=1), tmp_path / "run")
    (copy.parent / "images" / "0.png").write_bytes((copy.parent / "images" / "1.png").read_bytes())
    with pytest.raises(TrainingProblem, match=r"not those that .* was begun with"):
        train(small_plan(copy, epochs=1), tmp_path / "run", resumes=True)


def test_other_labels_than_the_run_was_begun_with_are_refused(tmp_path: Path) -> None:
    copy = write_shop(tmp_path / "shop", 60)
    train(small_plan(copy, epochs=1), tmp_path / "run")
    copy.write_text(copy.read_text().replace("0,disc,", "0,bar,", 1))
    with pytest.raises(TrainingProblem, match=r"what is said of them, are not those"):
        train(small_plan(copy, epochs=1), tmp_path / "run", resumes=True)
    with pytest.raises(TrainingProblem, match=r"what is said of them, are not those"), Bars(disable=True) as bars:
        export_run(RunFolder(tmp_path / "run"), tmp_path / "encoder", bars)


def test_a_checkpoint_of_another_architecture_is_refused(table: Path, tmp_path: Path) -> None:
    train(small_plan(table, epochs=1), tmp_path / "run")
    with pytest.raises(TrainingProblem, match=r"another architecture.*classifier\.weight"):
        train(small_plan(table, dim=7), tmp_path / "run", resumes=True)
    (tmp_path / "run" / "checkpoint.pt").write_bytes((tmp_path / "run" / "best.pt").read_bytes())
    with pytest.raises(TrainingProblem, match="no checkpoint of this run"):
        train(small_plan(table, epochs=1), tmp_path / "run", resumes=True)
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"half a file")
    with pytest.raises(TrainingProblem, match="can't be read as a checkpoint"):
        train(small_plan(table, epochs=1), tmp_path / "run", resumes=True)


def test_a_run_is_never_overwritten(table: Path, tmp_path: Path) -> None:
    train(small_plan(table, epochs=1), tmp_path / "run")
    with pytest.raises(TrainingProblem, match="has a run already"):
        train(small_plan(table, epochs=1), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": {"triplets": 1.0}}, "no loss triplets"),
        ({"backbone": "resnet5"}, "no backbone 'resnet5'"),
        ({"views": 2, "unfreeze_at": (1,)}, "don't go together"),
        ({"attributes": {"article_type": 1.0}}, "label already"),
        ({"losses": {"arcface": -1.0}}, "above 0"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"classes": 1}, "at least 2 classes"),
        ({"more_sizes": (0,)}, "at least 1 pixel"),
        ({"views": 1, "more_sizes": (20,)}, "as many stored views"),
        ({"prefixes": (16,)}, "shorter than the embedding, which has 16"),
        ({"teacher_weight": 0.0}, "leave the teacher out"),
        ({"rate": -1.0}, "rate must be above 0"),
        ({"dim": 0}, "dim must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"min_area": 0.0}, "min_area must be above 0"),
        ({"average": 1.5}, "average must be at least 0 and below 1"),
        ({"first_stage": 2}, "first_stage must be in 0 to 1"),
        ({"first_stage": 2, "dim": 8, "views": 1}, "first_stage must be in 0 to 1"),
        ({"first_stage": 3, "dim": 8}, "first_stage must be in 0 to 2"),
        ({"rate": -1.0, "seed": -1}, r"seed must be at least 0.* rate must be above 0"),
        ({"backbone": "vit_b_16", "train_size": 192}, "pictures of 224 pixels only"),
        ({"backbone": "vit_b_16", "train_size": None, "views": 2}, "leave out --views"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(table: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(TrainingProblem, match=message):
        small_plan(table, **changes)


@pytest.mark.parametrize(
    ("changes", "side"),
    [
        ({"backbone": "tf_efficientnet_lite0"}, 192),
        ({"backbone": "resnet50", "size": 112}, 96),
        ({"backbone": "vit_b_16"}, 224),
    ],
)
def test_pictures_to_learn_from_are_as_large_as_random_crops_make_them_look(
    table: Path, changes: dict[str, object], side: int
) -> None:
    assert small_plan(table, train_size=None, **changes).sizes == (side,)


def test_the_rate_rises_and_then_falls_to_nothing() -> None:
    rates = [rate_at(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001


def test_one_more_stage_learns_from_each_of_the_epochs_named(table: Path) -> None:
    plan = small_plan(table, first_stage=2, dim=8, unfreeze_at=(1, 4))
    assert [first_stage_at(plan, epoch) for epoch in range(6)] == [2, 1, 1, 1, 0, 0]


def test_processes_share_the_batches_of_an_epoch() -> None:
    batches = [torch.tensor([number]).numpy() for number in range(7)]
    shares = [[int(batch[0]) for batch in Turns(rank, 3).share(batches)] for rank in range(3)]
    assert shares == [[0, 3], [1, 4], [2, 5]]
    assert [int(batch[0]) for batch in Turns().share(batches)] == list(range(7))


def test_the_command_trains_stops_and_goes_on(table: Path, tmp_path: Path) -> None:
    runner, place = CliRunner(), [f"--cache={tmp_path}/cache"]
    asked = [
        "--backbone=small", "--first-stage=0", "--train-size=28", "--classes=4", "--photos=3", "--epochs=2",
        "--loss=multi-similarity=0.5", "--loss=cross-entropy", "--attribute=base_colour=0.5", "--threads=1",
    ]  # fmt: skip
    done = runner.invoke(main, [f"--data={table}", f"--out={tmp_path}/run", "--stop-after=1", *asked, *place])
    assert done.exit_code == 0, done.output
    assert "Epoch 1: loss" in done.output
    plan = read_plan(tmp_path / "run" / "config.json")
    assert plan.losses == {"multi-similarity": 0.5, "cross-entropy": 1.0}
    assert plan.attributes == {"base_colour": 0.5}
    again = runner.invoke(main, [f"--resume={tmp_path}/run", *place])
    assert again.exit_code == 0, again.output
    assert "Epoch 2: loss" in again.output
    assert "Best on val: Precision@5" in again.output
    refused = runner.invoke(main, [f"--data={table}", f"--out={tmp_path}/run", *asked, *place])
    assert refused.exit_code == 1
    assert "has a run already" in refused.output
    assert "Traceback" not in refused.output


def test_options_that_name_nothing_to_do_are_refused(tmp_path: Path) -> None:
    other = CliRunner().invoke(main, [f"--resume={tmp_path}", "--loss=arcface", "--epochs=3"])
    assert (other.exit_code, "leave out --loss, --epochs" in other.output) == (2, True)
    for options in ([], [f"--out={tmp_path}"], [f"--out={tmp_path}", f"--resume={tmp_path}"]):
        refused = CliRunner().invoke(main, options)
        assert refused.exit_code == 2
        assert "--resume alone" in refused.output
    assert "is not the plan of a run" in CliRunner().invoke(main, [f"--resume={tmp_path}"]).output


def test_the_command_trains_from_folders_named_by_class(tmp_path: Path) -> None:
    source = write_shop(tmp_path / "shop")
    for number, line in enumerate(source.read_text().splitlines()[1:]):
        folder = tmp_path / "classes" / line.split(",")[1]
        folder.mkdir(parents=True, exist_ok=True)
        (source.parent / "images" / f"{number}.png").rename(folder / f"{number}.png")
    asked = [f"--data={tmp_path}/classes", f"--out={tmp_path}/run", f"--cache={tmp_path}/cache", "--epochs=1"]
    done = CliRunner().invoke(main, [*asked, "--backbone=small", "--classes=4", "--photos=3", "--threads=1"])
    assert done.exit_code == 0, done.output
    assert "Best on val: Precision@5" in done.output


def test_the_command_tells_what_is_kept_when_it_is_stopped(table: Path, tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, tests.small_shop, training.train\n"
        "with tests.small_shop.small_backbone(pathlib.Path(sys.argv.pop(1))): training.train.main()"
    )
    asked = [f"--data={table}", f"--out={tmp_path}/run", f"--cache={tmp_path}/cache", "--epochs=1000", "--rate=1e-9"]
    asked += ["--backbone=small", "--classes=4", "--photos=3", "--threads=1", "--patience=1000"]
    running = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), *asked], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until((tmp_path / "run" / "checkpoint.pt").exists, 60, "an epoch is done")
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=60)
    finally:
        running.kill()
    assert "Finished epochs are kept; go on with: python -m training.train --resume" in told
    assert running.returncode == 1
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt")["progress"]["epoch"] >= 1


def test_what_is_judged_and_kept_is_the_average_and_what_learns_is_not_changed_by_that(
    table: Path, tmp_path: Path
) -> None:
    train(small_plan(table, average=0.9, epochs=1), tmp_path / "averaged")
    train(small_plan(table, epochs=1), tmp_path / "plain")
    averaged, learning = weights(tmp_path / "averaged", "best.pt"), weights(tmp_path / "averaged")
    assert not torch.equal(averaged["end.0.weight"], learning["end.0.weight"])
    assert torch.equal(learning["end.0.weight"], weights(tmp_path / "plain")["end.0.weight"])


def test_an_export_replaces_an_encoder_and_nothing_else(table: Path, tmp_path: Path) -> None:
    train(small_plan(table, epochs=1), tmp_path / "run")
    for _ in range(2):
        with Bars(disable=True) as bars:
            export_run(RunFolder(tmp_path / "run"), tmp_path / "encoder", bars)
    with pytest.raises(TrainingProblem, match="holds no encoder"), Bars(disable=True) as bars:
        export_run(RunFolder(tmp_path / "run"), tmp_path / "run", bars)
    assert (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_full_disk_at_export_is_told_and_leaves_the_encoder_that_was_there(table: Path, tmp_path: Path) -> None:
    train(small_plan(table, epochs=1), tmp_path / "run")
    with Bars(disable=True) as bars:
        export_run(RunFolder(tmp_path / "run"), tmp_path / "encoder", bars)
    before = {path.name: path.read_bytes() for path in (tmp_path / "encoder").iterdir()}
    with full_disk(1000):
        refused = CliRunner().invoke(export, [str(tmp_path / "run"), f"--out={tmp_path}/encoder", "--threads=1"])
    assert refused.exit_code == 1
    assert "File too large" in refused.output
    assert "Traceback" not in refused.output
    assert {path.name: path.read_bytes() for path in (tmp_path / "encoder").iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"run", "encoder", "cache", "small.pth"}


def test_photos_that_were_left_out_stand_in_the_runs_folder(tmp_path: Path) -> None:
    copy = write_shop(tmp_path / "shop", 60)
    (copy.parent / "images" / "1.png").write_bytes(b"no photo")
    train(small_plan(copy, epochs=1), tmp_path / "run")
    left_out = json.loads((tmp_path / "run" / "config.json").read_text())["left_out"]
    assert [Path(path).name for path in left_out] == ["1.png"]
    assert all(left_out.values())


def test_an_exported_run_has_its_best_weights(table: Path, tmp_path: Path) -> None:
    train(small_plan(table, dim=6, pooling="gem"), tmp_path / "run")
    with Bars(disable=True) as bars:
        manifest = export_run(RunFolder(tmp_path / "run"), tmp_path / "encoder", bars)
    best = weights(tmp_path / "run", "best.pt")
    exported = load_file(tmp_path / "encoder" / "weights.safetensors")
    assert all(torch.equal(exported[name], best[name]) for name in best)
    assert manifest["dim"] == 6 != FEATURES
    with pytest.raises(TrainingProblem, match="not the plan of a run"), Bars(disable=True) as bars:
        export_run(RunFolder(tmp_path), tmp_path / "other", bars)
