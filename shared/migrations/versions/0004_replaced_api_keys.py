"""Which API key a key replaces, and for how long both are good."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the two columns."""
    op.add_column("api_key", sa.Column("replaces", sa.String(length=32), nullable=True))
    op.add_column("api_key", sa.Column("overlap_ends_at", sa.DateTime(timezone=True), nullable=True))
