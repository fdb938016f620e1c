"""Sign-ins of browsers, so that one can be ended, and how what servers do again and again last went."""

import sqlalchemy as sa
from alembic import op

revision = "0010_sessions_and_rounds"
down_revision = "0008_decisions"
branch_labels = None
depends_on = None

MOMENT = sa.String(27)


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("person", sa.String(200), sa.ForeignKey("people.name"), nullable=False),
        sa.Column("began_at", MOMENT, nullable=False),
        sa.Column("ends_at", MOMENT, nullable=False, index=True),
        sa.Column("ended_at", MOMENT),
    )
    op.create_table(
        "rounds",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("process", sa.String(200), primary_key=True),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("ok_at", MOMENT),
        sa.Column("failing_since", MOMENT),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text()),
    )


def downgrade() -> None:
    for name in ("rounds", "sessions"):
        op.drop_table(name)
