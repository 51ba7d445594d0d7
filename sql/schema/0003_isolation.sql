-- Isolation: which of the user's tables carry a tenant floor.
--
-- One row per table that tenancy.protect_table was called on; its partitions and children follow it.
-- A row only says what the catalogs showed when it was written (tenancy._record_protection checks that),
-- so that an audit can tell "never protected" from "protected, and somebody undid it".
CREATE TABLE tenancy.protected_tables (
    relation      regclass    NOT NULL,
    tenant_column name        NOT NULL,
    org_column    name,
    operator_role name,
    protected_by  name        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT protected_tables_pkey PRIMARY KEY (relation)
);
COMMENT ON TABLE tenancy.protected_tables IS
    'Tables under tenancy.protect_table. Written only by protect_table and unprotect_table; a few rows, one per table.';
COMMENT ON COLUMN tenancy.protected_tables.relation IS 'The table; follows a rename.';
COMMENT ON COLUMN tenancy.protected_tables.tenant_column IS 'Column that the tenant floor compares with the identity''s tenant.';
COMMENT ON COLUMN tenancy.protected_tables.org_column IS 'Column that the access policy also compares with the identity''s organization; NULL: none.';
COMMENT ON COLUMN tenancy.protected_tables.operator_role IS 'Role that sees every tenant''s rows through a policy of its own; NULL: none.';
COMMENT ON COLUMN tenancy.protected_tables.protected_by IS 'Session user of the first protect_table call.';
COMMENT ON COLUMN tenancy.protected_tables.created_at IS 'When the table was first protected.';
COMMENT ON COLUMN tenancy.protected_tables.updated_at IS 'When protect_table last changed something.';

ALTER TABLE tenancy.protected_tables ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.protected_tables FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.protected_tables TO CURRENT_USER USING (true) WITH CHECK (true);
COMMENT ON POLICY owner_rows ON tenancy.protected_tables IS
    'Row-level security is forced: the owner''s functions reach the rows through this.';

-- How far an online protection has come. Nothing here is executed or believed: where to go on is found in the catalogs
-- and in the rows; this only spares a resumed run the blocks it has been through.
CREATE TABLE tenancy.protection_runs (
    relation      regclass    NOT NULL,
    step          text        NOT NULL,
    part          regclass,
    next_block    bigint      NOT NULL DEFAULT 0,
    last_block    bigint,
    rows_filled   bigint      NOT NULL DEFAULT 0,
    sweep_filled  bigint      NOT NULL DEFAULT 0,
    swept         boolean     NOT NULL DEFAULT false,
    message       text,
    started_by    name        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    finished_at   timestamptz,
    CONSTRAINT protection_runs_pkey PRIMARY KEY (relation)
);
COMMENT ON TABLE tenancy.protection_runs IS
    'Progress of CALL tenancy.protect_table_online, one row per table; read it through tenancy.protection_progress.';
COMMENT ON COLUMN tenancy.protection_runs.relation IS 'The table.';
COMMENT ON COLUMN tenancy.protection_runs.step IS 'The step it is at, as tenancy.protection_plan names them; done at the end.';
COMMENT ON COLUMN tenancy.protection_runs.part IS 'The table, partition or child whose rows are being filled.';
COMMENT ON COLUMN tenancy.protection_runs.next_block IS 'First block of that part not yet filled in this sweep.';
COMMENT ON COLUMN tenancy.protection_runs.last_block IS 'Number of blocks the part had when the sweep came to it.';
COMMENT ON COLUMN tenancy.protection_runs.rows_filled IS 'Rows given their tenant so far.';
COMMENT ON COLUMN tenancy.protection_runs.sweep_filled IS 'Rows given their tenant in this sweep.';
COMMENT ON COLUMN tenancy.protection_runs.swept IS 'Whether the last look found no row without a tenant.';
COMMENT ON COLUMN tenancy.protection_runs.message IS 'What it said last: a lock it waits for, statements for you to run.';
COMMENT ON COLUMN tenancy.protection_runs.started_by IS 'Session user of the first call.';
COMMENT ON COLUMN tenancy.protection_runs.created_at IS 'When the first call began.';
COMMENT ON COLUMN tenancy.protection_runs.updated_at IS 'When it last moved.';
COMMENT ON COLUMN tenancy.protection_runs.finished_at IS 'When the table was protected; NULL: not yet.';

ALTER TABLE tenancy.protection_runs ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.protection_runs FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.protection_runs TO CURRENT_USER USING (true) WITH CHECK (true);
COMMENT ON POLICY owner_rows ON tenancy.protection_runs IS
    'Row-level security is forced: the owner''s functions reach the rows through this.';

CREATE VIEW tenancy.protection_progress WITH (security_invoker = true) AS
SELECT r.relation,
       r.step,
       r.part,
       CASE WHEN r.last_block > 0 THEN least(100, round(100.0 * r.next_block / r.last_block, 1)) END AS percent_of_part,
       r.rows_filled,
       r.message,
       r.started_by,
       r.created_at,
       r.updated_at,
       r.finished_at
  FROM tenancy.protection_runs r;
COMMENT ON VIEW tenancy.protection_progress IS
    'How far each CALL tenancy.protect_table_online has come: step, part and percentage of a backfill, rows filled, last message.';
COMMENT ON COLUMN tenancy.protection_progress.percent_of_part IS 'Share of the part''s blocks that this sweep has been through.';
COMMENT ON COLUMN tenancy.protection_progress.relation IS 'The table.';
COMMENT ON COLUMN tenancy.protection_progress.step IS 'The step it is at, as tenancy.protection_plan names them; done at the end.';
COMMENT ON COLUMN tenancy.protection_progress.part IS 'The table, partition or child whose rows are being filled.';
COMMENT ON COLUMN tenancy.protection_progress.rows_filled IS 'Rows given their tenant so far.';
COMMENT ON COLUMN tenancy.protection_progress.message IS 'What it said last: a lock it waits for, statements for you to run.';
COMMENT ON COLUMN tenancy.protection_progress.started_by IS 'Session user of the first call.';
COMMENT ON COLUMN tenancy.protection_progress.created_at IS 'When the first call began.';
COMMENT ON COLUMN tenancy.protection_progress.updated_at IS 'When it last moved.';
COMMENT ON COLUMN tenancy.protection_progress.finished_at IS 'When the table was protected; NULL: not yet.';

-- Findings of the audit that somebody answers for, until a date.
CREATE TABLE tenancy.isolation_exemptions (
    object      text        NOT NULL,
    rule        text        NOT NULL,
    reason      text        NOT NULL,
    expires_at  timestamptz,
    exempted_by name        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT isolation_exemptions_pkey PRIMARY KEY (object, rule),
    CONSTRAINT isolation_exemptions_reason_check CHECK (reason ~ '\S')
);
COMMENT ON TABLE tenancy.isolation_exemptions IS
    'Findings of tenancy.audit_isolation that are waived, by whom, why and until when. Written by tenancy.exempt.';
COMMENT ON COLUMN tenancy.isolation_exemptions.object IS 'The object, as the audit writes it.';
COMMENT ON COLUMN tenancy.isolation_exemptions.rule IS 'The rule that is waived for it.';
COMMENT ON COLUMN tenancy.isolation_exemptions.reason IS 'Why that is right.';
COMMENT ON COLUMN tenancy.isolation_exemptions.expires_at IS 'When it is a finding again; NULL: never.';
COMMENT ON COLUMN tenancy.isolation_exemptions.exempted_by IS 'Session user who last exempted it.';
COMMENT ON COLUMN tenancy.isolation_exemptions.created_at IS 'When it was first exempted.';
COMMENT ON COLUMN tenancy.isolation_exemptions.updated_at IS 'When reason or end date last changed.';

ALTER TABLE tenancy.isolation_exemptions ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.isolation_exemptions FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.isolation_exemptions TO CURRENT_USER USING (true) WITH CHECK (true);
COMMENT ON POLICY owner_rows ON tenancy.isolation_exemptions IS
    'Row-level security is forced: the owner''s functions reach the rows through this.';
