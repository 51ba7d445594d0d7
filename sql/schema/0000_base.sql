-- 0000 base: what the other migrations and grant_access() are recorded in.
-- tenancy.schema_migrations itself is made by tenancy.install(), which writes into it.

CREATE TABLE tenancy.access_grants (
    role_name text NOT NULL,
    access text NOT NULL,
    granted_at timestamptz NOT NULL DEFAULT now(),
    granted_by text NOT NULL DEFAULT session_user,
    CONSTRAINT access_grants_pkey PRIMARY KEY (role_name, access),
    CONSTRAINT access_grants_access_check CHECK (access IN ('application', 'service', 'operator', 'metrics'))
);

ALTER TABLE tenancy.access_grants ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.access_grants FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.access_grants TO CURRENT_USER USING (true) WITH CHECK (true);

COMMENT ON TABLE tenancy.access_grants IS
'What tenancy.grant_access() gave to which role; tenancy.migrate() grants it again. By role name, so that it survives dump and restore.';
COMMENT ON COLUMN tenancy.access_grants.role_name IS 'Name of the role.';
COMMENT ON COLUMN tenancy.access_grants.access IS 'application, service, operator or metrics.';
COMMENT ON COLUMN tenancy.access_grants.granted_at IS 'When it was first granted.';
COMMENT ON COLUMN tenancy.access_grants.granted_by IS 'The login (session_user) that granted it.';
COMMENT ON POLICY owner_rows ON tenancy.access_grants IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
