"""Reports of the gateways that answer for an assistant."""

import sqlalchemy as sa
from alembic import op

revision = "0011_replicas"
down_revision = "0010_sessions_and_rounds"
branch_labels = None
depends_on = None

MOMENT = sa.String(27)


def upgrade() -> None:
    op.create_table(
        "replicas",
        sa.Column("assistant", sa.String(64), primary_key=True),
        sa.Column("replica", sa.String(80), primary_key=True),
        sa.Column("engine", sa.String(40), nullable=False),
        sa.Column("version", sa.String(64)),
        sa.Column("ready", sa.Boolean(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.Column("traffic", sa.Text(), nullable=False),
        sa.Column("latency", sa.Text(), nullable=False),
        sa.Column("trial", sa.Text(), nullable=False),
        sa.Column("reported_by", sa.String(200), nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("reported_at", MOMENT, nullable=False),
        sa.Column("agreed_at", MOMENT),
    )


def downgrade() -> None:
    op.drop_table("replicas")
