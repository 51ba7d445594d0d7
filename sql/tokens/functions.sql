-- What psql's \df+ says of the functions in src/tokens/.

COMMENT ON FUNCTION tenancy.authenticate_api_key(text) IS
'Makes the bearer of an API key the identity of this transaction, as authenticate does with a token, and returns the user''s external id: the key''s user_id, else the key''s own id. The key''s role is org_role(); what it permits, has_permission() answers. Works in a read-only transaction and on a standby. last_used_at is noted at most once a minute, in read-write READ COMMITTED transactions only. Errors: PT401 missing_api_key, invalid_api_key (one answer for unknown, revoked and lapsed keys); PT403 as authenticate; 55000.';
COMMENT ON FUNCTION tenancy._role_permissions(text) IS
'What a role permits by name; an owner may do everything else, too. Empty for a role that is none of the four.';
COMMENT ON FUNCTION tenancy._new_secret(text) IS
'A new secret of 32 random bytes for a kind (api_key or code), with prefix and checksum, and what may be shown of it.';
COMMENT ON FUNCTION tenancy._is_pkce(text) IS 'Whether a text has the form of a code challenge or verifier: RFC 7636 §4.1.';
COMMENT ON FUNCTION tenancy._verifier_matches(text, text) IS
'Whether base64url(SHA-256(verifier)) is the challenge: RFC 7636 §4.6, method S256. In constant time.';
COMMENT ON FUNCTION tenancy._sign_token(text, text) IS
'Signs claims, a JSON object, with the key of a signing profile, if that key and its algorithm are good for the issuer, and if nothing but the claims of our schema stands where the issuer''s claim_paths look. Errors: 55000 no_signing_profile, signing_key_retired, algorithm_not_allowed, master_key_missing; 22023 reserved_claim, invalid_extra, token_too_large.';
COMMENT ON FUNCTION tenancy._make_signing_key(text, text, bytea, text, text) IS
'Takes a signing key, or makes one where key is NULL, and gives it sealed for both contexts, or with its public half. Errors: 22023 with the reason, 55000.';
COMMENT ON FUNCTION tenancy._claimed_org_role(text, text, text) IS
'The role that verified claims give a user in an organization: the organizations map first, then the organization claim of the issuer''s profile; NULL where they give none. Errors: 22023 invalid_claims, also for another subject''s.';
COMMENT ON FUNCTION tenancy._require_good_identity() IS
'Judges the identity''s token or API key again, by what is committed at this moment: its key and audience, revocations, membership, the tenant''s status. Whatever gives its bearer something that lasts calls it. Errors: those of authenticate and authenticate_api_key.';
COMMENT ON FUNCTION tenancy._issued_here() IS
'Whether the identity came from a token that a signing profile''s key signed; false without a live identity.';
COMMENT ON FUNCTION tenancy._is_revoked(text, text, text, text, timestamptz) IS
'Whether revoke_session named the session, or revoke_user the user at or after that time, by what is committed at this moment.';
COMMENT ON FUNCTION tenancy._extension_origin() IS
'The extension token that the identity came from, itself or by what it has issued, and whether it is live by what is committed now; no row for any other identity. A token of 0.1.0 does not say where it came from: there its session does, while the extension token has a row.';
COMMENT ON FUNCTION tenancy._directory_role() IS
'The role that the directory gives the identity''s user in its organization, by what is committed at this moment; NULL without one. Errors: PT403 as authenticate.';
COMMENT ON FUNCTION tenancy._key_lapses() IS
'Whether the identity came from an API key that has an end, having been rotated, by what is committed at this moment.';
