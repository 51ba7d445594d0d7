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
