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

-- Schemas in which no hole is to open unseen.
CREATE TABLE tenancy.guarded_schemas (
    schema_name   name        NOT NULL,
    mode          text        NOT NULL,
    tenant_column name        NOT NULL,
    -- A restored or cloned database has another: the guard waits there until everything protected stands.
    database_oid  oid         NOT NULL,
    guarded_by    name        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT guarded_schemas_pkey PRIMARY KEY (schema_name),
    CONSTRAINT guarded_schemas_mode_check CHECK (mode IN ('report', 'protect', 'refuse'))
);
COMMENT ON TABLE tenancy.guarded_schemas IS 'Schemas under tenancy.guard_schema; without a row the event triggers do nothing.';
COMMENT ON COLUMN tenancy.guarded_schemas.schema_name IS 'The schema.';
COMMENT ON COLUMN tenancy.guarded_schemas.mode IS 'report: a warning; protect: closed at once, refused where that cannot be; refuse: the transaction fails.';
COMMENT ON COLUMN tenancy.guarded_schemas.tenant_column IS 'Tenant column that mode protect gives new tables.';
COMMENT ON COLUMN tenancy.guarded_schemas.database_oid IS 'Database in which the guard is armed.';
COMMENT ON COLUMN tenancy.guarded_schemas.guarded_by IS 'Session user who set the mode.';
COMMENT ON COLUMN tenancy.guarded_schemas.created_at IS 'When the schema was first guarded.';
COMMENT ON COLUMN tenancy.guarded_schemas.updated_at IS 'When the mode was last set.';

-- What the running transaction changed in guarded schemas; empty again at its end. The one trigger in our schema: a
-- constraint trigger, because only that lets a transaction open a hole and close it again before it is judged.
CREATE TABLE tenancy.guard_pending (
    transaction_id xid8 NOT NULL,
    relation       oid  NOT NULL,
    CONSTRAINT guard_pending_pkey PRIMARY KEY (transaction_id, relation)
);
COMMENT ON TABLE tenancy.guard_pending IS 'Relations that the running transaction changed in guarded schemas; looked at, and removed, as it commits.';
COMMENT ON COLUMN tenancy.guard_pending.transaction_id IS 'The transaction.';
COMMENT ON COLUMN tenancy.guard_pending.relation IS 'The table or view.';
CREATE CONSTRAINT TRIGGER guard_at_commit AFTER INSERT ON tenancy.guard_pending
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION tenancy._guard_at_commit();
COMMENT ON TRIGGER guard_at_commit ON tenancy.guard_pending IS 'Judges, as the transaction commits, what it changed.';

ALTER TABLE tenancy.guarded_schemas ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.guarded_schemas FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.guarded_schemas TO CURRENT_USER USING (true) WITH CHECK (true);
COMMENT ON POLICY owner_rows ON tenancy.guarded_schemas IS
    'Row-level security is forced: the owner''s functions reach the rows through this.';
ALTER TABLE tenancy.guard_pending ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.guard_pending FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.guard_pending TO CURRENT_USER USING (true) WITH CHECK (true);
COMMENT ON POLICY owner_rows ON tenancy.guard_pending IS
    'Row-level security is forced: the owner''s functions reach the rows through this.';

-- What delete_tenant did. Kept: it is the proof.
CREATE TABLE tenancy.tenant_deletions (
    tenant_id    text        NOT NULL,
    id           uuid        NOT NULL DEFAULT tenancy.uuid_v7(),
    deleted      jsonb       NOT NULL DEFAULT '{}',
    forced       boolean     NOT NULL,
    requested_by name        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    finished_at  timestamptz,
    CONSTRAINT tenant_deletions_pkey PRIMARY KEY (tenant_id, id)
);
COMMENT ON TABLE tenancy.tenant_deletions IS 'Receipts of tenancy.delete_tenant; one without finished_at goes on with the next call.';
COMMENT ON COLUMN tenancy.tenant_deletions.tenant_id IS 'The tenant.';
COMMENT ON COLUMN tenancy.tenant_deletions.id IS 'The deletion.';
COMMENT ON COLUMN tenancy.tenant_deletions.deleted IS 'Rows deleted so far, by table.';
COMMENT ON COLUMN tenancy.tenant_deletions.forced IS 'Whether it was forced: not suspended, or with credits or holds open.';
COMMENT ON COLUMN tenancy.tenant_deletions.requested_by IS 'Session user who began it.';
COMMENT ON COLUMN tenancy.tenant_deletions.created_at IS 'When it began.';
COMMENT ON COLUMN tenancy.tenant_deletions.updated_at IS 'When it last deleted something.';
COMMENT ON COLUMN tenancy.tenant_deletions.finished_at IS 'When nothing was left; NULL: not yet.';

ALTER TABLE tenancy.tenant_deletions ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.tenant_deletions FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.tenant_deletions TO CURRENT_USER USING (true) WITH CHECK (true);
COMMENT ON POLICY owner_rows ON tenancy.tenant_deletions IS
    'Row-level security is forced: the owner''s functions reach the rows through this.';
