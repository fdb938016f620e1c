"""How people were known when they decided; appointments by two admins; roles that groups of the provider give."""

import unicodedata

import sqlalchemy as sa
from alembic import op

revision = "0008_decisions"
down_revision = "0005_parked_rows"
branch_labels = None
depends_on = None

MOMENT = sa.String(27)


def upgrade() -> None:
    op.add_column("approvals", sa.Column("how", sa.String(256)))
    op.add_column("approvals", sa.Column("epoch", sa.Integer))
    op.add_column("grants", sa.Column("by_group", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("tokens", sa.Column("made_by", sa.String(200)))
    op.add_column("tokens", sa.Column("how", sa.String(256)))
    op.add_column("tokens", sa.Column("assured", sa.Boolean))
    op.add_column("policies", sa.Column("before", sa.Integer))
    op.create_table(
        "appointments",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("person", sa.String(200), sa.ForeignKey("people.name"), nullable=False),
        sa.Column("role", sa.String(32)),
        sa.Column("site", sa.String(64)),
        sa.Column("subject", sa.String(512)),
        sa.Column("proposed_by", sa.String(200), nullable=False),
        sa.Column("proposed_at", MOMENT, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("accepted_by", sa.String(200)),
        sa.Column("ended_at", MOMENT),
        sa.Column("alone", sa.String(32)),
    )
    _fold_names_by_width()


def _fold_names_by_width() -> None:
    """Names were compared by letter case only; where two would become one name, both stay as they are."""
    if op.get_context().as_sql:
        return  # a script has no rows to look at
    people = sa.table("people", sa.column("name", sa.String), sa.column("folded", sa.String))
    connection = op.get_bind()
    rows = connection.execute(sa.select(people.c.name, people.c.folded)).all()
    wanted = {row.name: unicodedata.normalize("NFKC", row.name).strip().casefold() for row in rows}
    taken = [row.folded for row in rows] + list(wanted.values())
    for row in rows:
        folded = wanted[row.name]
        if folded != row.folded and taken.count(folded) == 1:
            connection.execute(sa.update(people).where(people.c.name == row.name).values(folded=folded))


def downgrade() -> None:
    op.drop_table("appointments")
    for table, column in (
        ("policies", "before"),
        ("tokens", "assured"),
        ("tokens", "how"),
        ("tokens", "made_by"),
        ("grants", "by_group"),
        ("approvals", "epoch"),
        ("approvals", "how"),
    ):
        op.drop_column(table, column)
