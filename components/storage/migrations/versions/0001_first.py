"""First shape: queue, candidates, approvals, champion, promotions, results, leases, log, outbox."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

DIGEST = sa.String(64)
MOMENT = sa.String(27)
PERSON = sa.String(256)


def upgrade() -> None:
    op.create_table(
        "queue",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("assistant", sa.String(64), nullable=False),
        sa.Column("package", DIGEST, nullable=False),
        sa.Column("task", DIGEST),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("owner", PERSON, nullable=False),
        sa.Column("submitted_by", PERSON, nullable=False),
        sa.Column("launched_by", PERSON),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("reports", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("submitted_at", MOMENT, nullable=False),
        sa.Column("changed_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_queue"),
        sa.UniqueConstraint("assistant", "package", name="uq_queue_assistant"),
    )
    op.create_index("ix_queue_state", "queue", ["assistant", "state"])
    op.create_table(
        "candidates",
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("assistant", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("task", DIGEST, nullable=False),
        sa.Column("task_name", sa.String(200), nullable=False),
        sa.Column("parent", DIGEST),
        sa.Column("evidence", DIGEST, nullable=False),
        sa.Column("verdict", sa.String(32), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("submitted_by", PERSON, nullable=False),
        sa.Column("launched_by", PERSON, nullable=False),
        sa.Column("item", sa.Integer()),
        sa.Column("marks", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("changed_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_candidates"),
        sa.UniqueConstraint("assistant", "number", name="uq_candidates_assistant"),
        sa.ForeignKeyConstraint(["item"], ["queue.id"], name="fk_candidates_item"),
    )
    op.create_index("ix_candidates_task", "candidates", ["task", "parent"])
    op.create_table(
        "approvals",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("candidate", DIGEST, nullable=False),
        sa.Column("evidence", DIGEST, nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("person", PERSON, nullable=False),
        sa.Column("assured", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("revoked_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_approvals"),
        sa.ForeignKeyConstraint(["candidate"], ["candidates.digest"], name="fk_approvals_candidate"),
    )
    op.create_index("ix_approvals_candidate", "approvals", ["candidate"])
    op.create_table(
        "champion",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("version", DIGEST, nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("decided_at", MOMENT, nullable=False),
        sa.Column("served", DIGEST),
        sa.PrimaryKeyConstraint("name", name="pk_champion"),
        sa.ForeignKeyConstraint(["version"], ["candidates.digest"], name="fk_champion_version"),
    )
    op.create_table(
        "promotions",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("version", DIGEST, nullable=False),
        sa.Column("previous", DIGEST),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("by", PERSON, nullable=False),
        sa.Column("assured", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", DIGEST, nullable=False),
        sa.Column("marks", sa.Text(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("name", "epoch", name="pk_promotions"),
        sa.ForeignKeyConstraint(["version"], ["candidates.digest"], name="fk_promotions_version"),
    )
    op.create_table(
        "results",
        sa.Column("key", DIGEST, nullable=False),
        sa.Column("step", sa.String(64), nullable=False),
        sa.Column("output", DIGEST, nullable=False),
        sa.Column("lease_epoch", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_results"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("owner", PERSON),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("heartbeat", MOMENT, nullable=False),
        sa.Column("ttl", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("assistant", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("done_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
    )
    op.create_index("ix_outbox_done_at", "outbox", ["done_at"])
    op.create_table(
        "log",
        sa.Column("position", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("hash", DIGEST, nullable=False),
        sa.Column("root", DIGEST, nullable=False),
        sa.Column("peaks", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("position", name="pk_log"),
    )
    # the log refuses every change but its next entry, also `INSERT OR REPLACE`
    sqlite = op.get_context().dialect.name == "sqlite"
    for statement in _SQLITE_TRIGGERS if sqlite else _POSTGRESQL_TRIGGERS:
        op.execute(statement)


_SQLITE_TRIGGERS = [
    """CREATE TRIGGER log_no_update BEFORE UPDATE ON log
    BEGIN SELECT RAISE(ABORT, 'the log is insert-only'); END""",
    """CREATE TRIGGER log_no_delete BEFORE DELETE ON log
    BEGIN SELECT RAISE(ABORT, 'the log is insert-only'); END""",
    """CREATE TRIGGER log_next_only BEFORE INSERT ON log
    WHEN NEW.position <> (SELECT COALESCE(MAX(position) + 1, 0) FROM log)
    BEGIN SELECT RAISE(ABORT, 'the log takes only its next entry'); END""",
]
_POSTGRESQL_TRIGGERS = [
    """CREATE FUNCTION log_insert_only() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'the log is insert-only' USING ERRCODE = 'integrity_constraint_violation';
    END $$""",
    """CREATE FUNCTION log_next_only() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.position <> (SELECT COALESCE(MAX(position) + 1, 0) FROM log) THEN
            RAISE EXCEPTION 'the log takes only its next entry' USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NEW;
    END $$""",
    """CREATE TRIGGER log_no_change BEFORE UPDATE OR DELETE ON log
    FOR EACH ROW EXECUTE FUNCTION log_insert_only()""",
    """CREATE TRIGGER log_no_truncate BEFORE TRUNCATE ON log
    FOR EACH STATEMENT EXECUTE FUNCTION log_insert_only()""",
    """CREATE TRIGGER log_next_only BEFORE INSERT ON log
    FOR EACH ROW EXECUTE FUNCTION log_next_only()""",
]


def downgrade() -> None:
    raise NotImplementedError("the log is never taken apart; restore a backup instead")
