"""Digests of what MLflow packed around a published model, so that it can be compared like the model's own files."""

import sqlalchemy as sa
from alembic import op

revision = "0006_packing"
down_revision = "0005_parked_rows"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("outbox", sa.Column("packing", sa.Text()))


def downgrade() -> None:
    op.drop_column("outbox", "packing")
