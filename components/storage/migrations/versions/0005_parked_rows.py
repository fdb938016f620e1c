"""When the registry refused a row of the outbox last: it is parked, and the others go on."""

import sqlalchemy as sa
from alembic import op

revision = "0005_parked_rows"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("outbox", sa.Column("parked_at", sa.String(27)))


def downgrade() -> None:
    op.drop_column("outbox", "parked_at")
