"""Wordings that are proposed for learnt tasks, until a person accepts or declines them."""

import sqlalchemy as sa
from alembic import op

revision = "0013_wording_proposals"
down_revision = "0012_trials"
branch_labels = None
depends_on = None

MOMENT = sa.String(27)


def upgrade() -> None:
    op.create_table(
        "wording_proposals",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("assistant", sa.String(64), nullable=False, index=True),
        sa.Column("task", sa.String(64), nullable=False, index=True),
        sa.Column("label", sa.String(128), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("made_by", sa.String(256), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("decided_by", sa.String(256)),
        sa.Column("decided_at", MOMENT),
        sa.Column("item", sa.Integer(), sa.ForeignKey("queue.id")),
    )


def downgrade() -> None:
    op.drop_table("wording_proposals")
