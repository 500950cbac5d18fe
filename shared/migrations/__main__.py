"""Bring the catalogue database up to date; safe to run again, and by several hosts at once."""

from shared.database import connect_database
from shared.migrations import upgrade
from shared.settings import load_settings

if __name__ == "__main__":
    engine = connect_database(load_settings().database_url)
    print(f"Database {engine.url.render_as_string(hide_password=True)} is at revision {upgrade(engine)}.")
