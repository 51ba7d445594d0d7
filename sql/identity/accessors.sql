-- The accessors: bare C functions that policies compare a column with (docs/explanation, "why bare").
-- STABLE, never IMMUTABLE: a plan kept over two identities must ask again.

CREATE FUNCTION tenancy.user_id() RETURNS text
LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tenancy_user_id';
COMMENT ON FUNCTION tenancy.user_id() IS
'External id of the authenticated user (the token''s sub); NULL without a live identity.';

CREATE FUNCTION tenancy.tenant_id() RETURNS text
LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tenancy_tenant_id';
COMMENT ON FUNCTION tenancy.tenant_id() IS
'Tenant of the identity, the isolation boundary; NULL without a live identity.';

CREATE FUNCTION tenancy.org_id() RETURNS text
LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tenancy_org_id';
COMMENT ON FUNCTION tenancy.org_id() IS
'External id of the organization acted for; NULL for a personal identity or without a live one.';

CREATE FUNCTION tenancy.org_role() RETURNS text
LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tenancy_org_role';
COMMENT ON FUNCTION tenancy.org_role() IS
'Role in the organization, as the token or the directory gives it; NULL where there is none.';

CREATE FUNCTION tenancy.pool() RETURNS text
LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tenancy_pool';
COMMENT ON FUNCTION tenancy.pool() IS
'Which pool of credits pays: ''organization'' or ''personal''; NULL without a live identity.';

CREATE FUNCTION tenancy.session_id() RETURNS text
LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tenancy_session_id';
COMMENT ON FUNCTION tenancy.session_id() IS
'The provider''s session (sid); NULL where the token names none.';

CREATE FUNCTION tenancy.correlation_id() RETURNS text
LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tenancy_correlation_id';
COMMENT ON FUNCTION tenancy.correlation_id() IS
'Follows the work through ledger, events and audit; NULL without a live identity.';

CREATE FUNCTION tenancy.identity_namespace() RETURNS text
LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tenancy_identity_namespace';
COMMENT ON FUNCTION tenancy.identity_namespace() IS
'Namespace that user_id() and org_id() live in; NULL without a live identity.';

CREATE FUNCTION tenancy.user_uuid() RETURNS uuid
LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tenancy_user_uuid';
COMMENT ON FUNCTION tenancy.user_uuid() IS
'Internal id of the user (tenancy.users.id); NULL where the user is not registered.';

CREATE FUNCTION tenancy.organization_id() RETURNS uuid
LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tenancy_organization_id';
COMMENT ON FUNCTION tenancy.organization_id() IS
'Internal id of the organization (tenancy.organizations.id); NULL where there is none.';

CREATE FUNCTION tenancy.seat_id() RETURNS uuid
LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tenancy_seat_id';
COMMENT ON FUNCTION tenancy.seat_id() IS
'The user''s active seat in the organization when the identity was established; NULL without one.';

CREATE FUNCTION tenancy.tenant_uuid() RETURNS uuid
LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tenancy_tenant_uuid';
COMMENT ON FUNCTION tenancy.tenant_uuid() IS
'tenant_id() as uuid where it is one in canonical form, for uuid columns; else NULL.';

CREATE FUNCTION tenancy.org_uuid() RETURNS uuid
LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tenancy_org_uuid';
COMMENT ON FUNCTION tenancy.org_uuid() IS
'org_id() as uuid where it is one in canonical form, for uuid columns; else NULL.';

CREATE FUNCTION tenancy.tenant_bigint() RETURNS bigint
LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tenancy_tenant_bigint';
COMMENT ON FUNCTION tenancy.tenant_bigint() IS
'tenant_id() as bigint where it is one in canonical form, for bigint columns; else NULL.';

CREATE FUNCTION tenancy.expires_at() RETURNS timestamptz
LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tenancy_expires_at';
COMMENT ON FUNCTION tenancy.expires_at() IS
'When the identity ends (the token''s exp); NULL where it does not, or without a live identity.';
