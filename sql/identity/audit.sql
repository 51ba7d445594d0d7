-- The audit log, for the other domains.

CREATE FUNCTION tenancy._note_action(tenant_id text, action text, reason text DEFAULT NULL, detail jsonb DEFAULT '{}') RETURNS uuid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    noted uuid := tenancy.uuid_v7();
BEGIN
    INSERT INTO tenancy.audit_log (tenant_id, id, action, user_id, org_id, namespace, reason, correlation_id, detail)
    VALUES (_note_action.tenant_id, noted, _note_action.action, tenancy.user_id(), tenancy.org_id(),
            coalesce(tenancy.identity_namespace(), ''), _note_action.reason, tenancy.correlation_id(), _note_action.detail);
    RETURN noted;
END;
$$;
COMMENT ON FUNCTION tenancy._note_action(text, text, text, jsonb) IS
    'Internal: notes in tenancy.audit_log what was done to a tenant, with the login and, where there is one, the identity. Returns the entry''s id.';
