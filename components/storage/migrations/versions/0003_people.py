"""People, roles, tokens, policies of a server, notices; approvals in spite of the gate."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

MOMENT = sa.String(27)


def upgrade() -> None:
    op.add_column("approvals", sa.Column("override", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "people",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("folded", sa.String(200), nullable=False, unique=True),
        sa.Column("subject", sa.String(512), unique=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("disabled_at", MOMENT),
    )
    op.create_table(
        "grants",
        sa.Column("person", sa.String(200), sa.ForeignKey("people.name"), primary_key=True),
        sa.Column("role", sa.String(32), primary_key=True),
        sa.Column("site", sa.String(64), primary_key=True),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("secret", sa.String(64), nullable=False),
        sa.Column("person", sa.String(200), sa.ForeignKey("people.name"), nullable=False),
        sa.Column("label", sa.String(200), nullable=False),
        sa.Column("permissions", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("revoked_at", MOMENT),
        sa.Column("last_used_at", MOMENT),
    )
    op.create_table(
        "policies",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("assistant", sa.String(64), nullable=False, index=True),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("proposed_by", sa.String(200), nullable=False),
        sa.Column("proposed_at", MOMENT, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("accepted_by", sa.String(200)),
        sa.Column("ended_at", MOMENT),
    )
    op.create_table(
        "notices",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("assistant", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("about", sa.String(200), nullable=False),
        sa.Column("channel", sa.String(200), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", MOMENT, nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("done_at", MOMENT, index=True),
        sa.UniqueConstraint("assistant", "kind", "about", "channel"),
    )


def downgrade() -> None:
    for name in ("notices", "policies", "tokens", "grants", "people"):
        op.drop_table(name)
    op.drop_column("approvals", "override")
