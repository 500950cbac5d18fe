"""Building a release from the catalogue: as a command, interrupted, and refused."""

import signal
import subprocess
from pathlib import Path

import pytest

from shared.errors import ReleaseNotBuilt
from shared.releases import active_release, find_release, registered_releases
from tests.shop import Shop
from tests.stack import wait_until
from worker.releases import open_release
from worker.releases.build import ReleaseBuilder, Wishes
from worker.releases.sample import choose_label, choose_sample, read_images

pytestmark = pytest.mark.slow

COMMAND = ("-m", "worker.build_release")


def unseen(*_: object) -> None:
    """Take progress that nobody looks at."""


def test_a_release_is_built_from_the_catalogue_and_active_at_the_end(shop: Shop, tmp_path: Path) -> None:
    shop.fill(33)
    cache = tmp_path / "encoders"
    done = shop.run(*COMMAND, LOOKALIKE_ENCODER_CACHE_PATH=str(cache))
    assert done.returncode == 0, done.stdout + done.stderr
    release = active_release(shop.catalogue)
    assert release is not None
    assert release.is_finished
    tried = release.manifest["encoder"]["gate"]["tried"]
    assert tried[0]["runtime"] == "openvino-int8"
    assert tried[0]["accuracy"]["images"] == 22
    assert tried[0]["accuracy"]["reference_precision"] is not None
    assert tried[-1]["passed"]
    assert tried[-1]["runtime"] == release.runtime
    source = release.manifest["built_from"]
    assert (source["images"], source["label"]) == (33, "colour")
    assert (source["calibration_images"], source["held_out_images"]) == (11, 22)
    assert shop.catalogue.images_to_embed(release.encoder_id, 1) == []
    assert release.min_cosine == 1.0, "33 images are too few to calibrate with"
    for told in (release.id, "openvino-int8", "labels: colour", "Embedding the catalogue", "not calibrated"):
        assert told in done.stdout


def test_a_killed_build_leaves_the_active_release_and_the_next_one_goes_on(shop: Shop) -> None:
    hashes = shop.fill(140)
    serving = shop.serve()
    draft = shop.interrupted_build()
    process = subprocess.Popen(**shop.command(*COMMAND), stdout=subprocess.DEVNULL)
    embedded = shop.catalogue.embedded_images
    try:
        wait_until(lambda: len(embedded(draft.encoder_id, hashes)) > 0, 120, "embeddings of the new release")
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    assert active_release(shop.catalogue) == shop.serve() == serving
    kept = len(embedded(draft.encoder_id, hashes))

    steps: list[str] = []
    builder = ReleaseBuilder(shop.catalogue, shop.store, shop.settings, lambda step, *_: steps.append(step))
    built = builder.build(Wishes())
    assert built.embedded == len(hashes) - kept
    assert not any("Quantising" in step for step in steps), "what was chosen is not chosen again"
    assert embedded(draft.encoder_id, hashes) == set(hashes)
    assert built.release.id == draft.id
    assert active_release(shop.catalogue) == find_release(shop.catalogue, built.release.id)
    assert built.release.manifest["similar"]["photos"] == 35
    assert built.release.manifest["similar"]["table"]
    assert shop.serve() == built.release


def test_a_release_may_wait_until_it_is_wanted(shop: Shop) -> None:
    shop.fill(40)
    serving = shop.serve()
    shop.interrupted_build()
    built = ReleaseBuilder(shop.catalogue, shop.store, shop.settings, unseen).build(Wishes(activates=False))
    assert active_release(shop.catalogue) == serving
    assert built.release in registered_releases(shop.catalogue)
    done = shop.run(*COMMAND, "--use", built.release.id)
    assert done.returncode == 0, done.stderr
    assert active_release(shop.catalogue) == find_release(shop.catalogue, built.release.id)
    refused = shop.run(*COMMAND, "--use", "nothing.flat")
    assert refused.returncode == 1
    assert f"there are: {built.release.id}, {serving.id}." in refused.stderr
    assert active_release(shop.catalogue) == find_release(shop.catalogue, built.release.id)


def test_an_unfinished_release_is_never_served(shop: Shop) -> None:
    draft = shop.interrupted_build()
    refused = shop.run(*COMMAND, "--use", draft.id)
    assert refused.returncode == 1
    assert "no finished release" in refused.stderr


def test_photos_that_changed_or_went_are_left_out(shop: Shop) -> None:
    hashes = sorted(shop.fill(40))
    gone, broken = hashes[0], hashes[-1]
    (shop.folder / "store" / shop.store.image_key(gone)).unlink()
    (shop.folder / "store" / shop.store.image_key(broken)).write_bytes(b"no photo")
    shop.serve()
    shop.interrupted_build()
    built = ReleaseBuilder(shop.catalogue, shop.store, shop.settings, unseen).build(Wishes())
    assert built.embedded == 38
    assert open_release(built.release, shop.store, shop.settings).id == built.release.encoder_id
    used = [sha256 for sha256, _ in read_images(shop.store, shop.settings, hashes)]
    assert used == hashes[1:-1]


def test_a_store_without_most_of_the_images_is_no_ground_for_a_release(shop: Shop) -> None:
    hashes = shop.fill(31)
    for sha256 in hashes[:20]:
        (shop.folder / "store" / shop.store.image_key(sha256)).unlink()
    with pytest.raises(ReleaseNotBuilt, match=r"20 of 31 images .*FileNotFoundError 20.*LOOKALIKE_STORE_URL"):
        list(read_images(shop.store, shop.settings, hashes))


def test_the_sample_is_the_same_each_time_and_no_image_is_on_both_sides(shop: Shop) -> None:
    hashes = shop.fill(60)
    sample = choose_sample(shop.catalogue)
    assert sample == choose_sample(shop.catalogue)
    assert (len(sample.calibration), len(sample.held_out), sample.catalogue_images) == (20, 40, 60)
    assert sorted(hashes) == sorted([*sample.calibration, *sample.held_out])


def test_the_label_is_what_most_images_have_and_several_share(shop: Shop) -> None:
    hashes = shop.fill(40)
    label, labels = choose_label(shop.catalogue, hashes, None)
    assert label == "colour"
    assert labels[:5] == ["red", "green", "blue", "grey", "red"]
    assert choose_label(shop.catalogue, hashes[:19], None) == (None, []), "4 values are too many for 19 images"
    assert choose_label(shop.catalogue, hashes[:19], "colour") == ("colour", labels[:19])
    with pytest.raises(ReleaseNotBuilt, match=r"'brand' .* there are: colour"):
        choose_label(shop.catalogue, hashes, "brand")


def test_the_command_says_what_to_do_where_it_can_not_build(shop: Shop, tmp_path: Path) -> None:
    shop.fill(3)
    few = shop.run(*COMMAND)
    assert few.returncode == 1
    assert "3 images" in few.stderr
    assert "Import items first" in few.stderr
    shop.fill(31)
    weights = shop.run(*COMMAND, LOOKALIKE_ENCODER_WEIGHTS_PATH=str(tmp_path / "none.safetensors"))
    assert weights.returncode == 1
    assert "Correct LOOKALIKE_ENCODER_WEIGHTS_PATH" in weights.stderr
    empty = shop.run(*COMMAND, DATABASE_URL=f"sqlite:///{tmp_path}/empty.sqlite3")
    assert empty.returncode == 1
    assert "python -m shared.migrations" in empty.stderr
    assert "Traceback" not in few.stderr + weights.stderr + empty.stderr
