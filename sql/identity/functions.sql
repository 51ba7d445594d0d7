-- What psql's \df+ says of the identity's functions in src/identity/.

COMMENT ON FUNCTION tenancy.authenticate(text) IS
'Verifies a token and makes its bearer the identity of this transaction; returns the user''s external id. Call it first in the transaction. The same token again changes nothing, another identity is refused; COMMIT and ROLLBACK end it. Writes nothing, so it works on a standby. Outside a transaction block it warns: the identity is gone with the statement. Errors: PT401 with the reason the token was refused; PT403 where its tenant is not its organization''s, where it was issued here and its bearer has left the organization (not_a_member), or where the transaction has another identity; 55000.';
COMMENT ON FUNCTION tenancy.verify_token(text) IS
'Says whether authenticate would take a token (valid), why not (reason), and what it claims if it would (claims). No side effect. Error: 55000.';
COMMENT ON FUNCTION tenancy.act_as(text, text, text, text, text) IS
'Makes somebody the identity of this transaction without a token, for workers and back offices, and returns the user''s external id. The user need not be registered. Recorded in tenancy.audit_log with the login and reason. Errors: 22023, PT403 as authenticate, 55000.';
COMMENT ON FUNCTION tenancy.authenticate_request() IS
'authenticate() for the bearer of an HTTP request, for PostgREST''s db-pre-request: reads the token from the header that tenancy.request_token_header names (Authorization) in request.headers, and the correlation id from X-Correlation-ID (one that is no UUID is replaced). Returns the user''s external id, NULL without a token. Errors: as authenticate; PT401 several_tokens where that header came twice.';
COMMENT ON FUNCTION tenancy.identity_headers() IS
'The identity as HTTP headers for another service: X-User-ID, X-Org-ID (only with an organization), X-Tenant-ID, X-Correlation-ID; where an id is not visible ASCII all ids are URL-quoted and X-Identity-Encoding is url. NULL without a live identity.';
COMMENT ON FUNCTION tenancy.clear_identity() IS
'Leaves the transaction without an identity; true where it had one. A different identity stays refused until the transaction ends.';
COMMENT ON FUNCTION tenancy.claims() IS 'The verified claims of the token; NULL without a live identity that came from a token.';
COMMENT ON FUNCTION tenancy.claim(text) IS
'One verified claim: a string as it is, anything else as JSON text; NULL where the token has none of that name.';
COMMENT ON FUNCTION tenancy.has_permission(text) IS 'Whether the identity holds a permission; false without a live identity. Its role in the organization, with or without the prefix org:, carries read_config (viewer), also manage_modules (operator), also write_config, manage_keys and read_audit (admin, owner); its token may add others.';
COMMENT ON FUNCTION tenancy.jws_verify(jsonb, text) IS
'Verifies the signature of a compact JWS (RFC 7515) with a JWK (RFC 7517), or with the key of a JWK set that its kid names; the payload may be anything and no claim is looked at. It authenticates nobody. Error: 22023 for a key that is refused.';

COMMENT ON FUNCTION tenancy._permissions() IS 'The permissions of the caller''s own identity; NULL without a live one.';
COMMENT ON FUNCTION tenancy._provenance() IS
'How the caller''s own identity was established, by which issuer and token; no row without a live one.';
COMMENT ON FUNCTION tenancy._check_issuer(text[], text, text[], text[], text, text[]) IS
'Checks an issuer''s configuration: true, or 22023 with the reason.';
COMMENT ON FUNCTION tenancy._check_jwk(text) IS
'Checks a public key; gives its kid (or RFC 7638 thumbprint), its algorithm where it is bound to one, and the key. Error: 22023 with the reason.';
COMMENT ON FUNCTION tenancy._check_jwks(text) IS
'Checks a set of public keys: one row a key that can verify signatures. Error: 22023 with the reason.';
COMMENT ON FUNCTION tenancy._same_key(text, text) IS 'Whether two JWKs hold the same public key (RFC 7638 thumbprints).';
COMMENT ON FUNCTION tenancy._check_secret(text, bytea) IS
'Checks that a secret is long enough for an HMAC algorithm: true, or 22023 with the reason.';
COMMENT ON FUNCTION tenancy._seal(bytea, text) IS
'Seals a secret (AES-256-GCM) under the master key, bound to the place that context names. Error: 55000 without a usable master key file.';
COMMENT ON FUNCTION tenancy._unseal(bytea, text) IS 'Opens what _seal sealed for that place. Error: 55000.';
COMMENT ON FUNCTION tenancy._sealed_under_current_key(bytea) IS 'Whether a secret is sealed under the current master key. Error: 55000.';

COMMENT ON FUNCTION tenancy._master_key_file_sha256() IS 'SHA-256 in hex of the file that tenancy.master_key_file names. Error: 55000.';

COMMENT ON COLUMN tenancy.identity.user_id IS 'External id of the user (sub).';
COMMENT ON COLUMN tenancy.identity.tenant_id IS 'The tenant: the isolation boundary.';
COMMENT ON COLUMN tenancy.identity.org_id IS 'External id of the organization; NULL for a personal identity.';
COMMENT ON COLUMN tenancy.identity.org_role IS 'Role in the organization.';
COMMENT ON COLUMN tenancy.identity.pool IS 'Which pool of credits pays: organization or personal.';
COMMENT ON COLUMN tenancy.identity.namespace IS 'Namespace of user_id and org_id.';
COMMENT ON COLUMN tenancy.identity.session_id IS 'The provider''s session (sid), if the token names one.';
COMMENT ON COLUMN tenancy.identity.correlation_id IS 'Follows the work through ledger, events and audit.';
COMMENT ON COLUMN tenancy.identity.user_uuid IS 'Internal id of the user (users.id); NULL where not registered.';
COMMENT ON COLUMN tenancy.identity.organization_id IS 'Internal id of the organization (organizations.id); NULL where there is none.';
COMMENT ON COLUMN tenancy.identity.seat_id IS 'The active seat when the identity was established; NULL without one.';
COMMENT ON COLUMN tenancy.identity.expires_at IS 'When the identity ends; NULL where it does not.';
COMMENT ON COLUMN tenancy.identity.permissions IS 'The permissions it holds.';
COMMENT ON COLUMN tenancy.identity.source IS 'How it was established: token, act_as or api_key.';
COMMENT ON COLUMN tenancy.identity.issuer IS 'The issuer of the token; NULL without one.';
COMMENT ON COLUMN tenancy.identity.token_id IS 'The token''s id (jti), if it has one.';

COMMENT ON FUNCTION tenancy._tenant_of(text, text, text) IS
'The tenant of a user and organization that a service names: the registered organization''s, else the organization''s id, else the user''s own. Errors: PT403 tenant_taken, tenant_suspended; 22023 reserved_id.';
