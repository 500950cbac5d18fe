from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import DBAPIError

from shared.catalogue import Catalogue
from shared.catalogue_change import ItemChange
from shared.database import connect_database
from shared.migrations import applied_revision, current_head, upgrade
from shared.tables import Table


def tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names())


def test_an_empty_database_gets_all_tables(database_url: str) -> None:
    engine = connect_database(database_url)
    assert applied_revision(engine) is None
    assert tables(engine) == set()
    assert upgrade(engine) == current_head()
    assert applied_revision(engine) == current_head() != ""
    assert tables(engine) == {*Table.metadata.tables, "alembic_version"}
    engine.dispose()


def test_a_second_upgrade_changes_nothing(engine: Engine) -> None:
    with Catalogue(engine).change() as change:
        change.put([ItemChange("a", "A", {"size": 5}, None)])
    before = Catalogue(engine).item("a")
    assert upgrade(engine) == current_head()
    assert Catalogue(engine).item("a") == before
    assert Catalogue(engine).state().seq == 1


def test_the_migrated_schema_is_the_one_that_the_code_knows(engine: Engine) -> None:
    options = {"compare_type": True, "compare_server_default": True}
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Table.metadata) == []
        connection.execute(text("ALTER TABLE item ADD COLUMN left_over INTEGER"))
        assert [entry[0] for entry in compare_metadata(context, Table.metadata)] == ["remove_column"]


def test_half_a_migration_leaves_nothing(database_url: str) -> None:
    engine = connect_database(database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE item_image (id INTEGER)"))  # in the way, after other tables were made
    with pytest.raises(DBAPIError, match="item_image"):
        upgrade(engine)
    assert tables(engine) == {"item_image"}
    assert applied_revision(engine) is None
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE item_image"))
    assert upgrade(engine) == current_head()
    engine.dispose()


def test_several_processes_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    together = Barrier(4)

    def open_and_write(engine: Engine) -> None:
        together.wait()
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS a (x INTEGER)"))

    with ThreadPoolExecutor(4) as pool:
        for round_ in range(200):  # SQLite refuses the lock in about one round of fifty
            engines = [connect_database(f"sqlite:///{tmp_path}/{round_}.sqlite3") for _ in range(4)]
            list(pool.map(open_and_write, engines))
            for engine in engines:
                engine.dispose()


def test_several_hosts_may_migrate_at_once(database_url: str) -> None:
    engines = [connect_database(database_url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(upgrade, engines)) == {current_head()}
    assert Catalogue(engines[0]).state().seq == 0
    with engines[0].connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM catalogue_state")).scalar_one() == 1
    for engine in engines:
        engine.dispose()
