CREATE FUNCTION tenancy.add_note(tenant_id text, note text) RETURNS uuid
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    made uuid;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(add_note.tenant_id, 'tenant_id');
    UPDATE tenancy.tenants SET notes = tenants.notes + 1 WHERE tenants.tenant_id = add_note.tenant_id;
    INSERT INTO tenancy.made_up_notes (tenant_id, note) VALUES (add_note.tenant_id, add_note.note)
    RETURNING made_up_notes.id INTO made;
    RETURN made;
END
$$;

COMMENT ON FUNCTION tenancy.add_note(text, text) IS 'Keeps a note of a tenant.';
