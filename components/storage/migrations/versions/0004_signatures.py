"""The log's signing keys, one signed statement per promotion, heads on their way to places outside the database."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

DIGEST = sa.String(64)
MOMENT = sa.String(27)


def upgrade() -> None:
    op.create_table(
        "signing_keys",
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("id", DIGEST, nullable=False, unique=True),
        sa.Column("record", sa.Text(), nullable=False),
        sa.Column("entry", sa.Integer(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
    )
    op.create_table(
        "statements",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("epoch", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("key", DIGEST, primary_key=True),
        sa.Column("statement", DIGEST, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
    )
    op.create_table(
        "heads",
        sa.Column("entries", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("place", sa.String(512), primary_key=True),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("done_at", MOMENT, index=True),
    )


def downgrade() -> None:
    for name in ("heads", "statements", "signing_keys"):
        op.drop_table(name)
