-- 9000 made_up: what a migration of a later version may do. Compiled in only for the upgrade tests (feature made_up_next).

CREATE TABLE tenancy.made_up_notes (
    tenant_id text NOT NULL,
    id uuid NOT NULL DEFAULT tenancy.uuid_v7(),
    note text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT made_up_notes_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT made_up_notes_note_check CHECK (length(note) BETWEEN 1 AND 1000)
);
ALTER TABLE tenancy.made_up_notes ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.made_up_notes FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.made_up_notes TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY tenant_rows ON tenancy.made_up_notes FOR SELECT USING (tenant_id = tenancy.tenant_id());
COMMENT ON TABLE tenancy.made_up_notes IS 'Notes of a tenant: of a version that does not exist.';
COMMENT ON COLUMN tenancy.made_up_notes.note IS 'What was noted.';

-- A column with a default for the rows that are there, a constraint, an index, and a rewrite of rows.
ALTER TABLE tenancy.tenants ADD COLUMN notes integer NOT NULL DEFAULT 0,
    ADD CONSTRAINT tenants_notes_check CHECK (notes >= 0);
COMMENT ON COLUMN tenancy.tenants.notes IS 'How many notes it has.';
CREATE INDEX organizations_name_idx ON tenancy.organizations (tenant_id, name);
UPDATE tenancy.tenants SET notes = 1 WHERE status = 'suspended';
INSERT INTO tenancy.made_up_notes (tenant_id, note)
SELECT tenant_id, 'suspended before notes existed' FROM tenancy.tenants WHERE status = 'suspended';
