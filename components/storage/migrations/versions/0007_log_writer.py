"""The log's own writer and what each account may have entered; the entry of each decision; a place for a damaged end.

On PostgreSQL `log_enter` is the only way into the log: it runs with the rights of the tables' owner, and the trigger
`log_next` checks each entry to the last byte, the owner's own too. SQLite, which has neither accounts nor sha256,
checks the rest.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007_log_writer"
down_revision = "0006_packing"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlite = op.get_context().dialect.name == "sqlite"
    _run(_OLD_GUARD_SQLITE if sqlite else _OLD_GUARD_POSTGRESQL)
    op.add_column("log", sa.Column("action", sa.Text()))
    op.add_column("log", sa.Column("subject", sa.Text()))
    op.add_column("promotions", sa.Column("entry", sa.Integer()))
    _run(_FILL_SQLITE if sqlite else _FILL_POSTGRESQL)
    op.create_index("ix_log_action", "log", ["action", "position"])
    op.create_index("ix_log_subject", "log", ["subject", "position"])
    op.create_table(
        "log_actions",
        sa.Column("account", sa.String(64), primary_key=True),
        sa.Column("action", sa.String(64), primary_key=True),
        sa.Column("actors", sa.Text()),
    )
    op.create_table(
        "log_set_aside",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("entry", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("root", sa.Text(), nullable=False),
        sa.Column("peaks", sa.Text(), nullable=False),
    )
    _run(_GUARD_SQLITE if sqlite else [part.replace("SCHEMA", _schema()) for part in _GUARD_POSTGRESQL])


def _run(statements: list[str]) -> None:
    for statement in statements:
        op.execute(sa.text(statement.replace(":", "\\:")))  # `::` is no parameter


def _schema() -> str:
    """The schema of the tables, quoted: what the writer's names are looked up in, whoever calls it."""
    if op.get_context().as_sql:
        return "public"
    return str(op.get_bind().execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one())


_OLD_GUARD_SQLITE = [f"DROP TRIGGER {name}" for name in ("log_no_update", "log_no_delete", "log_next_only")]
_OLD_GUARD_POSTGRESQL = [
    *(f"DROP TRIGGER {name} ON log" for name in ("log_no_change", "log_no_truncate", "log_next_only")),
    "DROP FUNCTION log_next_only()",
    "DROP FUNCTION log_insert_only()",
]

# What is no JSON stays without: a damaged entry must not keep the state from going on. Of several entries about one
# decision the oldest is its own: it was written with it.
_FILL_SQLITE = [
    """UPDATE log SET action = json_extract(CAST(body AS TEXT), '$.action'),
        subject = json_extract(CAST(body AS TEXT), '$.subject')
    WHERE json_valid(CAST(body AS TEXT))""",
    """UPDATE promotions SET entry = (
        SELECT MIN(position) FROM (
            SELECT position, subject, CAST(body AS TEXT) AS told FROM log
            WHERE log.action IN ('champion.promoted', 'champion.rolled_back')
        ) WHERE subject = promotions.version AND json_extract(told, '$.details.epoch') = promotions.epoch
        AND json_extract(told, '$.details.assistant') = promotions.name
        AND json_extract(told, '$.actor.name') = promotions."by")""",
]
_FILL_POSTGRESQL = [
    """CREATE FUNCTION lcia_told(body bytea, VARIADIC path text[]) RETURNS text LANGUAGE plpgsql AS $$
    BEGIN
        RETURN convert_from(body, 'UTF8')::jsonb #>> path;
    EXCEPTION WHEN OTHERS THEN
        RETURN NULL;
    END $$""",
    "UPDATE log SET action = lcia_told(body, 'action'), subject = lcia_told(body, 'subject')",
    """UPDATE promotions SET entry = (
        SELECT MIN(position) FROM log
        WHERE log.action IN ('champion.promoted', 'champion.rolled_back') AND log.subject = promotions.version
        AND lcia_told(body, 'details', 'epoch') = promotions.epoch::text
        AND lcia_told(body, 'details', 'assistant') = promotions.name
        AND lcia_told(body, 'actor', 'name') = promotions.by)""",
    "DROP FUNCTION lcia_told(bytea, text[])",
]

_GUARD_SQLITE = [
    """CREATE TRIGGER log_no_update BEFORE UPDATE ON log
    BEGIN SELECT RAISE(ABORT, 'the log is insert-only'); END""",
    """CREATE TRIGGER log_no_delete BEFORE DELETE ON log
    BEGIN SELECT RAISE(ABORT, 'the log is insert-only'); END""",
    """CREATE TRIGGER log_next_only BEFORE INSERT ON log
    WHEN NEW.position <> (SELECT COALESCE(MAX(position) + 1, 0) FROM log)
    BEGIN SELECT RAISE(ABORT, 'the log takes only its next entry'); END""",
    """CREATE TRIGGER log_whole_only BEFORE INSERT ON log
    WHEN NOT COALESCE(json_valid(CAST(NEW.body AS TEXT)), 0)
    BEGIN SELECT RAISE(ABORT, 'the log takes only JSON'); END""",
    """CREATE TRIGGER log_linked_only BEFORE INSERT ON log
    WHEN json_valid(CAST(NEW.body AS TEXT)) AND NOT COALESCE(
        json_extract(CAST(NEW.body AS TEXT), '$.index') = NEW.position
        AND json_extract(CAST(NEW.body AS TEXT), '$.previous')
            = COALESCE((SELECT hash FROM log WHERE position = NEW.position - 1), '')
        AND json_extract(CAST(NEW.body AS TEXT), '$.action') = NEW.action
        AND json_extract(CAST(NEW.body AS TEXT), '$.subject') = NEW.subject
        AND length(NEW.hash) = 64 AND NEW.hash NOT GLOB '*[^0-9a-f]*'
        AND length(NEW.root) = 64 AND NEW.root NOT GLOB '*[^0-9a-f]*', 0)
    BEGIN SELECT RAISE(ABORT, 'the log takes only an entry that follows its last one'); END""",
]
_GUARD_POSTGRESQL = [
    # A number as RFC 8785 writes it, which is as ECMAScript does: the fewest digits that are read as the same double.
    # PostgreSQL writes one more where the shorter number lies right between two doubles.
    """CREATE FUNCTION log_number(value numeric) RETURNS text LANGUAGE plpgsql IMMUTABLE
    SET extra_float_digits = 1 AS $$
    DECLARE
        double float8 := value;
        told text := double::text;
        exponent integer;
        shorter numeric;
    BEGIN
        IF value = trunc(value) AND abs(value) < 9007199254740992 THEN
            RETURN trunc(value)::text;
        END IF;
        LOOP
            exponent := floor(log(abs(told::numeric)));
            shorter := round(told::numeric, length(regexp_replace(
                regexp_replace(told, 'e.*|[-.]', '', 'g'), '^0+|0+$', '', 'g')) - 2 - exponent);
            EXIT WHEN shorter = told::numeric OR shorter = 0 OR shorter::float8 <> double;
            told := shorter::float8::text;
            IF told::numeric <> shorter THEN
                told := shorter::text;
                EXIT;
            END IF;
        END LOOP;
        IF abs(value) >= 1e21 OR abs(value) < 1e-6 THEN
            IF told !~ 'e' THEN
                exponent := floor(log(abs(told::numeric)));
                told := rtrim(rtrim(round(told::numeric / (10::numeric ^ exponent), 20)::text, '0'), '.')
                    || CASE WHEN exponent < 0 THEN 'e' ELSE 'e+' END || exponent;
            END IF;
            RETURN regexp_replace(told, 'e([+-])0+', 'e\\1');
        END IF;
        told := told::numeric::text;
        RETURN CASE WHEN told LIKE '%.%' THEN rtrim(rtrim(told, '0'), '.') ELSE told END;
    END $$""",
    # a value as RFC 8785 writes it; keys go by UTF-16, where what lies beyond U+FFFF comes before U+E000
    """CREATE FUNCTION log_canonical(value jsonb) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
    DECLARE
        kind constant text := jsonb_typeof(value);
    BEGIN
        IF kind = 'object' THEN
            RETURN '{' || coalesce((
                SELECT string_agg(
                    to_json(one.key)::text || ':' || CASE
                        WHEN jsonb_typeof(one.value) IN ('string', 'boolean', 'null')
                            OR one.value::text ~ '^(0|-?[1-9][0-9]{0,14})$' THEN one.value::text
                        ELSE log_canonical(one.value) END, ','
                    ORDER BY CASE WHEN octet_length(one.key) = length(one.key) THEN one.key
                        ELSE regexp_replace(one.key, '([\\U00010000-\\U0010FFFF])', U&'\\D7FF' || '\\1', 'g')
                        END COLLATE "C"
                ) FROM jsonb_each(value) AS one), '') || '}';
        ELSIF kind = 'array' THEN
            RETURN '[' || coalesce((
                SELECT string_agg(log_canonical(one.value), ',' ORDER BY one.place)
                FROM jsonb_array_elements(value) WITH ORDINALITY AS one(value, place)), '') || ']';
        ELSIF kind = 'number' THEN
            RETURN log_number((value #>> '{}')::numeric);
        END IF;
        RETURN value::text;
    END $$""",
    """CREATE FUNCTION log_root(peaks bytea[]) RETURNS bytea LANGUAGE plpgsql IMMUTABLE AS $$
    DECLARE
        root bytea := peaks[cardinality(peaks)];
    BEGIN
        FOR i IN REVERSE cardinality(peaks) - 1 .. 1 LOOP
            root := sha256('\\x01'::bytea || peaks[i] || root);
        END LOOP;
        RETURN root;
    END $$""",
    """CREATE FUNCTION log_peaks(told text) RETURNS bytea[] LANGUAGE sql IMMUTABLE AS $$
        SELECT coalesce(array_agg(decode(one.peak, 'hex') ORDER BY one.place), ARRAY[]::bytea[])
        FROM unnest(string_to_array(told, ' ')) WITH ORDINALITY AS one(peak, place)
    $$""",
    """CREATE FUNCTION log_next() RETURNS trigger LANGUAGE plpgsql SET search_path = SCHEMA, pg_temp AS $$
    DECLARE
        mine constant text := (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = TG_RELID);
        last log%ROWTYPE;
        size integer := 0;
        previous text := '';
        peaks bytea[] := ARRAY[]::bytea[];
        value jsonb;
        how text;
        leaf bytea;
        carry bytea;
        kept integer;
    BEGIN
        IF NOT pg_has_role(current_user, mine, 'USAGE') THEN
            RAISE EXCEPTION 'entries of the log are written by log_enter alone' USING ERRCODE = '42501';
        END IF;
        SELECT * INTO last FROM log ORDER BY position DESC LIMIT 1;
        IF FOUND THEN
            size := last.position + 1;
            previous := last.hash;
            peaks := log_peaks(last.peaks);
            IF encode(sha256('\\x00'::bytea || last.body), 'hex') <> last.hash
                    OR encode(log_root(peaks), 'hex') IS DISTINCT FROM last.root THEN
                RAISE EXCEPTION 'the end of the log is damaged: entry %', last.position USING ERRCODE = '23L02';
            END IF;
        END IF;
        BEGIN
            value := convert_from(NEW.body, 'UTF8')::jsonb;
            IF octet_length(NEW.body) > 4194304 OR convert_to(log_canonical(value), 'UTF8') <> NEW.body THEN
                RAISE EXCEPTION 'not canonical, or larger than 4 MiB';
            END IF;
        EXCEPTION WHEN OTHERS THEN
            RAISE EXCEPTION 'the log takes only canonical JSON (%)', SQLERRM USING ERRCODE = '23L01';
        END;
        IF coalesce(NEW.position, size) <> size OR (value -> 'index') IS DISTINCT FROM to_jsonb(size)
                OR (value -> 'previous') IS DISTINCT FROM to_jsonb(previous) THEN
            RAISE EXCEPTION 'the log takes only its next entry, %, which follows the last', size
                USING ERRCODE = '23L01';
        END IF;
        how := value #>> '{actor,how}';
        IF (SELECT array_agg(key ORDER BY key COLLATE "C") FROM jsonb_object_keys(value) AS key)
                    <> ARRAY['action', 'actor', 'at', 'details', 'index', 'previous', 'subject']
                OR jsonb_typeof(value -> 'details') <> 'object' OR jsonb_typeof(value -> 'subject') <> 'string'
                OR jsonb_typeof(value -> 'at') <> 'string' OR jsonb_typeof(value -> 'action') <> 'string'
                OR jsonb_typeof(value -> 'actor') <> 'object' THEN
            RAISE EXCEPTION 'the log takes only the fields of an entry' USING ERRCODE = '23L01';
        END IF;
        IF (SELECT array_agg(key ORDER BY key COLLATE "C") FROM jsonb_object_keys(value -> 'actor') AS key)
                    <> ARRAY['assured', 'how', 'name']
                OR jsonb_typeof(value #> '{actor,assured}') <> 'boolean'
                OR jsonb_typeof(value #> '{actor,how}') <> 'string'
                OR jsonb_typeof(value #> '{actor,name}') <> 'string'
                OR length(value #>> '{actor,name}') NOT BETWEEN 1 AND 200 OR length(how) > 64
                OR (value ->> 'action') !~ '^[a-z][a-z_]*[.][a-z][a-z_]*$' OR length(value ->> 'action') > 64 THEN
            RAISE EXCEPTION 'the log takes only an actor and an action that can be read' USING ERRCODE = '23L01';
        END IF;
        IF (value ->> 'at') !~ '^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d[.]\\d{6}Z$'
                OR abs(extract(epoch FROM (value ->> 'at')::timestamptz - clock_timestamp())) > 300 THEN
            RAISE EXCEPTION 'the log takes only entries of now; this one is of %', value ->> 'at'
                USING ERRCODE = '23L01';
        END IF;
        IF NOT pg_has_role(session_user, mine, 'USAGE') AND NOT EXISTS (
            SELECT FROM log_actions JOIN pg_roles ON pg_roles.rolname = log_actions.account
            WHERE pg_has_role(session_user, pg_roles.oid, 'USAGE')
            AND log_actions.action IN (value ->> 'action', split_part(value ->> 'action', '.', 1) || '.*')
            AND (log_actions.actors IS NULL OR how = ANY(string_to_array(log_actions.actors, ' ')) AND (
                how <> 'system' OR value -> 'actor' = '{"assured": true, "how": "system", "name": "lcia"}'::jsonb
            ) AND (how IN ('system', 'os-user') OR value #> '{actor,assured}' = 'false'::jsonb))
        ) THEN
            RAISE EXCEPTION '% may not have % by % (%) entered in the log', session_user, value ->> 'action',
                value #>> '{actor,name}', how USING ERRCODE = '42501';
        END IF;
        leaf := sha256('\\x00'::bytea || NEW.body);
        carry := leaf;
        kept := cardinality(peaks);
        WHILE size & 1 = 1 LOOP
            carry := sha256('\\x01'::bytea || peaks[kept] || carry);
            kept := kept - 1;
            size := size >> 1;
        END LOOP;
        peaks := peaks[1:kept] || ARRAY[carry];
        IF NEW.hash <> encode(leaf, 'hex') OR NEW.root <> encode(log_root(peaks), 'hex') THEN
            RAISE EXCEPTION 'the hash or root beside the entry is not its own' USING ERRCODE = '23L01';
        END IF;
        NEW.position := (value ->> 'index')::integer;
        NEW.hash := encode(leaf, 'hex');
        NEW.root := encode(log_root(peaks), 'hex');
        NEW.peaks := (SELECT string_agg(encode(one.peak, 'hex'), ' ' ORDER BY one.place)
            FROM unnest(peaks) WITH ORDINALITY AS one(peak, place));
        NEW.action := value ->> 'action';
        NEW.subject := value ->> 'subject';
        RETURN NEW;
    END $$""",
    """CREATE FUNCTION log_insert_only() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'the log is insert-only' USING ERRCODE = 'integrity_constraint_violation';
    END $$""",
    """CREATE TRIGGER log_no_change BEFORE UPDATE OR DELETE ON log
    FOR EACH ROW EXECUTE FUNCTION log_insert_only()""",
    """CREATE TRIGGER log_no_truncate BEFORE TRUNCATE ON log
    FOR EACH STATEMENT EXECUTE FUNCTION log_insert_only()""",
    """CREATE TRIGGER log_next_only BEFORE INSERT ON log
    FOR EACH ROW EXECUTE FUNCTION log_next()""",
    # the lock is that of every write transaction: whoever calls this without it waits here
    """CREATE FUNCTION log_enter(bodies bytea[]) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = SCHEMA, pg_temp AS $$
    DECLARE
        one bytea;
    BEGIN
        PERFORM pg_advisory_xact_lock(7103951);
        FOREACH one IN ARRAY bodies LOOP
            INSERT INTO log (body) VALUES (one);
        END LOOP;
    END $$""",
    """DO $$
    BEGIN
        EXECUTE format('ALTER FUNCTION log_enter(bytea[]) OWNER TO %I',
            (SELECT tableowner FROM pg_tables WHERE tablename = 'log' AND schemaname = current_schema()));
    END $$""",
    "REVOKE ALL ON FUNCTION log_enter(bytea[]) FROM PUBLIC",
]


def downgrade() -> None:
    raise NotImplementedError("the log is never taken apart; restore a backup instead")
