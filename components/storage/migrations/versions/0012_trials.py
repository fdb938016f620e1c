"""Trials of candidates on the traffic of gateways, and approvals bound to their records."""

import sqlalchemy as sa
from alembic import op

revision = "0012_trials"
down_revision = "0011_replicas"
branch_labels = None
depends_on = None

MOMENT = sa.String(27)


def upgrade() -> None:
    op.add_column("approvals", sa.Column("trials", sa.String(64)))
    op.create_table(
        "trials",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("assistant", sa.String(64), nullable=False, index=True),
        sa.Column("candidate", sa.String(64), sa.ForeignKey("candidates.digest"), nullable=False, index=True),
        sa.Column("evidence", sa.String(64), nullable=False),
        sa.Column("champion", sa.String(64), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("share", sa.Float(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("rules", sa.Text(), nullable=False),
        sa.Column("tests", sa.Text(), nullable=False),
        sa.Column("asked_by", sa.String(200), nullable=False),
        sa.Column("asked_at", MOMENT, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("approved_by", sa.String(200)),
        sa.Column("approval", sa.Text()),
        sa.Column("started_at", MOMENT),
        sa.Column("entry", sa.Integer()),
        sa.Column("ended_at", MOMENT),
        sa.Column("ended_by", sa.String(200)),
        sa.Column("cause", sa.String(32)),
        sa.Column("why", sa.Text()),
        sa.Column("record", sa.String(64)),
        sa.Column("answers", sa.String(64)),
        sa.Column("answers_until", MOMENT),
        sa.Column("statement", sa.String(64)),
        sa.Column("signed_by", sa.String(64)),
    )
    op.create_table(
        "trial_counts",
        sa.Column("trial", sa.Integer(), sa.ForeignKey("trials.id"), primary_key=True),
        sa.Column("replica", sa.String(80), primary_key=True),
        sa.Column("counts", sa.Text(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
    )
    op.create_table(
        "trial_answers",
        sa.Column("trial", sa.Integer(), sa.ForeignKey("trials.id"), primary_key=True),
        sa.Column("id", sa.String(80), primary_key=True),
        sa.Column("champion", sa.Text(), nullable=False),
        sa.Column("candidate", sa.Text(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
    )


def downgrade() -> None:
    for name in ("trial_answers", "trial_counts", "trials"):
        op.drop_table(name)
    op.drop_column("approvals", "trials")
