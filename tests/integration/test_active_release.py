"""Which release a worker works for, and what it has to do with another one."""

from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any
from weakref import ref

import numpy as np
import pytest
from sqlalchemy import text

from shared.catalogue_change import ImageRef, ItemChange
from shared.database import connect_database
from shared.migrations import upgrade
from shared.releases import Release, activate_unless_fitting, choose_release
from shared.settings import Settings
from tests.conftest import make_settings
from tests.servers import RedisProcess
from tests.stack import wait_until
from worker.encoder import EncoderUnavailable, encoder_id
from worker.releases.release import release_of
from worker.services import Services


@pytest.fixture
def services(settings: Settings) -> Services:
    upgrade(connect_database(settings.database_url))
    return Services(settings)


@pytest.fixture
def first(services: Services) -> Release:
    """An active release of the encoder that the settings name, whose files nobody has."""
    base_id = encoder_id(services.settings.encoder)
    encoder: dict[str, Any] = {"id": base_id, "base_id": base_id, "runtime": "openvino", "dim": 4, "files": {"a": "b"}}
    release = release_of(encoder, similar={"min_cosine": 0.99, "how": ""})
    activate_unless_fitting(services.catalogue, release, "another encoder")
    return release


def test_photos_are_taken_in_for_the_release_that_is_active_now(services: Services, first: Release) -> None:
    intake = services.intake
    assert intake.encoder_id == first.encoder_id
    assert services.intake is intake, "threads share it"
    second = replace(
        first, id="other.flat", encoder_id="other", manifest={**first.manifest, "encoder": {"id": "other"}}
    )
    activate_unless_fitting(services.catalogue, second, "another encoder")
    assert services.intake.encoder_id == "other"


def test_photos_are_taken_in_on_another_runtime_of_the_same_encoder(services: Services, first: Release) -> None:
    before = services.intake
    encoder = {**first.manifest["encoder"], "runtime": "torch", "files": {"a": "c"}}
    choose_release(services.catalogue, replace(first, manifest={**first.manifest, "encoder": encoder}))
    assert services.intake is not before
    assert services.intake.encoder_id == before.encoder_id


def test_the_engine_goes_on_following_after_a_release_that_nobody_can_read(
    services: Services, first: Release, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.services.RETRY_SECONDS", 0.02)
    stopped = Event()
    unreadable = replace(first, manifest={**first.manifest, "encoder": {"base_id": None}})
    activate_unless_fitting(services.catalogue, unreadable, "another encoder")
    services.active._is_known = True  # as in a worker that has served another release before
    thread = services.follow_catalogue(stopped)
    try:
        wait_until(lambda: caplog.text.count("The present release goes on") > 1, 20, "it tries again")
    finally:
        stopped.set()
        thread.join(20)
    assert not thread.is_alive()


def test_a_release_that_was_measured_again_is_noticed_though_its_id_stays(services: Services, first: Release) -> None:
    assert services.active.current().min_cosine == 0.99
    choose_release(services.catalogue, replace(first, manifest={**first.manifest, "similar": {"min_cosine": 0.97}}))
    assert services.active.current().min_cosine == 0.97


def test_an_engine_that_was_replaced_is_freed_when_its_last_search_has_ended(
    redis_server: RedisProcess, tmp_path: Path
) -> None:
    settings = make_settings(redis_server, tmp_path, refresh_interval_seconds=0.02)
    upgrade(connect_database(settings.database_url))
    services, stopped = Services(settings), Event()
    services.load_engine()
    at_work = [services.engine]  # as a search has it
    index = ref(at_work[0].live_index)
    thread = services.follow_catalogue(stopped)
    try:
        release = at_work[0].release
        choose_release(
            services.catalogue, replace(release, manifest={**release.manifest, "similar": {"min_cosine": 1}})
        )
        wait_until(lambda: services.engine not in at_work, 60, "another engine serves")
        at_work.clear()
        wait_until(lambda: index() is None, 20, "the index of the first one is freed")
    finally:
        stopped.set()
        thread.join(20)


def test_an_encoder_whose_files_are_gone_is_refused_with_a_remedy(services: Services, first: Release) -> None:
    with pytest.raises(EncoderUnavailable):
        services.load_engine()
    with pytest.raises(RuntimeError, match="does not take searches"):
        _ = services.engine


def test_the_engine_follows_the_catalogue_by_itself_and_goes_on_after_the_database_was_away(
    redis_server: RedisProcess, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings(redis_server, tmp_path, refresh_interval_seconds=0.02)
    database = connect_database(settings.database_url)
    upgrade(database)
    services, stopped = Services(settings), Event()
    services.load_engine()
    thread = services.follow_catalogue(stopped)
    try:
        encoder = services.engine.encoder
        vector = np.eye(1, encoder.dim, dtype="<f4")
        with services.catalogue.change() as change:
            change.add_embeddings(encoder.id, {"a" * 64: vector.tobytes()})
            change.put([ItemChange("a", "", {}, [ImageRef("a" * 64, "image/png")])])
        wait_until(lambda: len(services.engine.live_index) == 1, 20, "a new item is found")
        with database.begin() as connection:
            connection.execute(text("ALTER TABLE catalogue_state RENAME TO away"))
        wait_until(lambda: "can't follow the catalogue" in caplog.text, 20, "it notices")
        with database.begin() as connection:
            connection.execute(text("ALTER TABLE away RENAME TO catalogue_state"))
        with services.catalogue.change() as change:
            change.delete(["a"])
        wait_until(lambda: len(services.engine.live_index) == 0, 20, "it goes on")
    finally:
        stopped.set()
        thread.join(20)
    assert not thread.is_alive()
