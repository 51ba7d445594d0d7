-- 0007 tokens: what the product's own token service remembers.
-- No secret stands in these tables: of tokens, codes and keys only the SHA-256, of private keys and device texts a box
-- sealed under the master key. A bearer's secret says nothing of its tenant, so its row is found by a unique index on
-- the hash alone; that is fine for these tables, which are bounded (a few rows a user, cleaned up by
-- tenancy.clean_up_tokens()) and can become Citus reference tables. token_audit_logs grows: tenant_id leads its key.

CREATE TABLE tenancy.signing_profiles (
    name text NOT NULL,
    issuer text NOT NULL,
    audience text NOT NULL,
    algorithm text NOT NULL,
    key_id text NOT NULL,
    sealed_key bytea NOT NULL,
    refresh_max_age interval NOT NULL DEFAULT '90 days',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT signing_profiles_pkey PRIMARY KEY (name),
    CONSTRAINT signing_profiles_name_check CHECK (name <> ''),
    CONSTRAINT signing_profiles_refresh_max_age_check CHECK (refresh_max_age BETWEEN '1 hour' AND '3660 days'),
    CONSTRAINT signing_profiles_key_fkey FOREIGN KEY (issuer, key_id) REFERENCES tenancy.issuer_keys (issuer, kid)
);

CREATE TABLE tenancy.extension_tokens (
    id uuid NOT NULL,
    token_hash bytea NOT NULL,
    tenant_id text NOT NULL,
    namespace text NOT NULL,
    user_id uuid NOT NULL,
    org_id text,
    profile text NOT NULL,
    name text,
    sealed_device bytea,
    sealed_address bytea,
    refresh_count integer NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL,
    last_used_at timestamptz,
    revoked_at timestamptz,
    revoked_reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT extension_tokens_pkey PRIMARY KEY (id),
    CONSTRAINT extension_tokens_token_hash_key UNIQUE (token_hash),
    CONSTRAINT extension_tokens_user_fkey FOREIGN KEY (user_id) REFERENCES tenancy.users (id),
    CONSTRAINT extension_tokens_token_hash_check CHECK (octet_length(token_hash) = 32),
    CONSTRAINT extension_tokens_refresh_count_check CHECK (refresh_count >= 0),
    CONSTRAINT extension_tokens_revoked_check CHECK ((revoked_at IS NULL) = (revoked_reason IS NULL))
);
CREATE INDEX extension_tokens_user_idx ON tenancy.extension_tokens (user_id, created_at);

CREATE TABLE tenancy.token_families (
    id uuid NOT NULL,
    tenant_id text NOT NULL,
    namespace text NOT NULL,
    user_id uuid NOT NULL,
    org_id text,
    profile text NOT NULL,
    issuer text NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    revoked_reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT token_families_pkey PRIMARY KEY (id),
    CONSTRAINT token_families_user_fkey FOREIGN KEY (user_id) REFERENCES tenancy.users (id),
    CONSTRAINT token_families_revoked_check CHECK ((revoked_at IS NULL) = (revoked_reason IS NULL))
);
CREATE INDEX token_families_expires_at_idx ON tenancy.token_families (expires_at);

CREATE TABLE tenancy.refresh_tokens (
    id uuid NOT NULL,
    token_hash bytea NOT NULL,
    family_id uuid NOT NULL,
    tenant_id text NOT NULL,
    expires_at timestamptz NOT NULL,
    replaced_at timestamptz,
    replaced_by uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT refresh_tokens_pkey PRIMARY KEY (id),
    CONSTRAINT refresh_tokens_token_hash_key UNIQUE (token_hash),
    CONSTRAINT refresh_tokens_family_fkey FOREIGN KEY (family_id) REFERENCES tenancy.token_families (id),
    CONSTRAINT refresh_tokens_token_hash_check CHECK (octet_length(token_hash) = 32),
    CONSTRAINT refresh_tokens_replaced_check CHECK ((replaced_at IS NULL) = (replaced_by IS NULL))
);
-- A family has one living token.
CREATE UNIQUE INDEX refresh_tokens_living_key ON tenancy.refresh_tokens (family_id) WHERE replaced_at IS NULL;
CREATE INDEX refresh_tokens_family_idx ON tenancy.refresh_tokens (family_id);

CREATE TABLE tenancy.oauth_codes (
    id uuid NOT NULL,
    code_hash bytea NOT NULL,
    tenant_id text NOT NULL,
    namespace text NOT NULL,
    user_id uuid NOT NULL,
    org_id text,
    profile text NOT NULL,
    code_challenge text NOT NULL,
    state_hash bytea NOT NULL,
    redirect_uri text NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    family_id uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT oauth_codes_pkey PRIMARY KEY (id),
    CONSTRAINT oauth_codes_code_hash_key UNIQUE (code_hash),
    CONSTRAINT oauth_codes_user_fkey FOREIGN KEY (user_id) REFERENCES tenancy.users (id),
    CONSTRAINT oauth_codes_hashes_check CHECK (octet_length(code_hash) = 32 AND octet_length(state_hash) = 32),
    CONSTRAINT oauth_codes_family_check CHECK (family_id IS NULL OR used_at IS NOT NULL)
);
CREATE INDEX oauth_codes_expires_at_idx ON tenancy.oauth_codes (expires_at);

CREATE TABLE tenancy.api_keys (
    id uuid NOT NULL,
    key_hash bytea NOT NULL,
    prefix text NOT NULL,
    tenant_id text NOT NULL,
    namespace text NOT NULL,
    organization_id uuid NOT NULL,
    org_id text NOT NULL,
    user_id text,
    role text NOT NULL,
    name text,
    status text NOT NULL DEFAULT 'active',
    for_member boolean NOT NULL DEFAULT false,
    valid_until timestamptz,
    replaced_by uuid,
    last_used_at timestamptz,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT api_keys_pkey PRIMARY KEY (id),
    CONSTRAINT api_keys_key_hash_key UNIQUE (key_hash),
    CONSTRAINT api_keys_organization_fkey
        FOREIGN KEY (tenant_id, organization_id) REFERENCES tenancy.organizations (tenant_id, id),
    CONSTRAINT api_keys_key_hash_check CHECK (octet_length(key_hash) = 32),
    CONSTRAINT api_keys_role_check CHECK (role IN ('viewer', 'operator', 'admin', 'owner')),
    CONSTRAINT api_keys_status_check CHECK (status IN ('active', 'rotation_pending', 'revoked')),
    CONSTRAINT api_keys_rotation_check
        CHECK (status <> 'rotation_pending' OR (valid_until IS NOT NULL AND replaced_by IS NOT NULL))
);
CREATE INDEX api_keys_organization_idx ON tenancy.api_keys (tenant_id, organization_id);

CREATE TABLE tenancy.token_audit_logs (
    tenant_id text NOT NULL,
    id uuid NOT NULL DEFAULT tenancy.uuid_v7(),
    action text NOT NULL,
    kind text NOT NULL,
    token_id uuid,
    namespace text NOT NULL DEFAULT '',
    user_id text,
    org_id text,
    reason text,
    correlation_id text,
    actor text NOT NULL DEFAULT session_user,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT token_audit_logs_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT token_audit_logs_action_check CHECK (action IN ('generated', 'used', 'refreshed', 'revoked', 'refused')),
    CONSTRAINT token_audit_logs_kind_check CHECK (kind IN ('extension_token', 'authorization_code', 'refresh_token', 'api_key')),
    CONSTRAINT token_audit_logs_reason_check CHECK (action <> 'refused' OR reason IS NOT NULL)
);
CREATE INDEX token_audit_logs_created_at_idx ON tenancy.token_audit_logs (created_at);

COMMENT ON TABLE tenancy.signing_profiles IS 'What the products own tokens are signed with and for: one row a profile. Written by add_signing_profile.';
COMMENT ON COLUMN tenancy.signing_profiles.name IS 'The profiles name; issuing functions use default.';
COMMENT ON COLUMN tenancy.signing_profiles.issuer IS 'iss of its tokens; configured in tenancy.issuers.';
COMMENT ON COLUMN tenancy.signing_profiles.audience IS 'aud of its tokens.';
COMMENT ON COLUMN tenancy.signing_profiles.algorithm IS 'Algorithm of the signing key (RFC 7518, RFC 8037).';
COMMENT ON COLUMN tenancy.signing_profiles.key_id IS 'kid of the signing key, in tenancy.issuer_keys too, where it verifies.';
COMMENT ON COLUMN tenancy.signing_profiles.sealed_key IS 'The signing key, AES-256-GCM under the master key.';
COMMENT ON COLUMN tenancy.signing_profiles.refresh_max_age IS 'How long after signing in a family of refresh tokens can be refreshed at most, however often it is.';
COMMENT ON COLUMN tenancy.signing_profiles.created_at IS 'When the profile was made.';
COMMENT ON COLUMN tenancy.signing_profiles.updated_at IS 'When it last changed: a new key or audience.';
COMMENT ON TABLE tenancy.extension_tokens IS 'Long-lived tokens of editor extensions. Written by issue_, refresh_, validate_ and revoke_extension_token.';
COMMENT ON COLUMN tenancy.extension_tokens.id IS 'Internal id (UUID version 7): jti and session_id of the token.';
COMMENT ON COLUMN tenancy.extension_tokens.token_hash IS 'SHA-256 of the token.';
COMMENT ON COLUMN tenancy.extension_tokens.tenant_id IS 'The organizations tenant, or the users own.';
COMMENT ON COLUMN tenancy.extension_tokens.namespace IS 'Namespace of user and organization.';
COMMENT ON COLUMN tenancy.extension_tokens.user_id IS 'Whose it is (users.id).';
COMMENT ON COLUMN tenancy.extension_tokens.org_id IS 'External id of the organization it was asked for; NULL: personal.';
COMMENT ON COLUMN tenancy.extension_tokens.profile IS 'The signing profile that signed it.';
COMMENT ON COLUMN tenancy.extension_tokens.name IS 'What the user calls it.';
COMMENT ON COLUMN tenancy.extension_tokens.sealed_device IS 'The device, sealed under the master key.';
COMMENT ON COLUMN tenancy.extension_tokens.sealed_address IS 'The network address it was asked from, sealed under the master key.';
COMMENT ON COLUMN tenancy.extension_tokens.refresh_count IS 'How often it was refreshed so far, predecessors included.';
COMMENT ON COLUMN tenancy.extension_tokens.expires_at IS 'When it ends by itself.';
COMMENT ON COLUMN tenancy.extension_tokens.last_used_at IS 'When it was last validated, to the minute.';
COMMENT ON COLUMN tenancy.extension_tokens.revoked_at IS 'When it was revoked.';
COMMENT ON COLUMN tenancy.extension_tokens.revoked_reason IS 'revoked, or refreshed where a successor took its place.';
COMMENT ON COLUMN tenancy.extension_tokens.created_at IS 'When it was issued.';
COMMENT ON TABLE tenancy.token_families IS 'Refresh tokens that descend from one authorization: what a reuse revokes. Its row is the lock under which one of its tokens is exchanged.';
COMMENT ON COLUMN tenancy.token_families.id IS 'Internal id (UUID version 7): session_id of all its tokens.';
COMMENT ON COLUMN tenancy.token_families.tenant_id IS 'The organizations tenant, or the users own.';
COMMENT ON COLUMN tenancy.token_families.namespace IS 'Namespace of user and organization.';
COMMENT ON COLUMN tenancy.token_families.user_id IS 'Whose it is (users.id).';
COMMENT ON COLUMN tenancy.token_families.org_id IS 'External id of the organization it was asked for; NULL: personal.';
COMMENT ON COLUMN tenancy.token_families.profile IS 'The signing profile of its tokens.';
COMMENT ON COLUMN tenancy.token_families.issuer IS 'Their issuer: the scope in which the session is revoked.';
COMMENT ON COLUMN tenancy.token_families.expires_at IS 'When its living token ends by itself.';
COMMENT ON COLUMN tenancy.token_families.revoked_at IS 'When it was revoked.';
COMMENT ON COLUMN tenancy.token_families.revoked_reason IS 'reused, code_reused or signed_out.';
COMMENT ON COLUMN tenancy.token_families.created_at IS 'When the authorization was completed.';
COMMENT ON COLUMN tenancy.token_families.updated_at IS 'When a token of it was last exchanged.';
COMMENT ON TABLE tenancy.refresh_tokens IS 'Refresh tokens: one living token a family, and its ancestors until they are cleaned up.';
COMMENT ON COLUMN tenancy.refresh_tokens.id IS 'Internal id (UUID version 7): jti of the token.';
COMMENT ON COLUMN tenancy.refresh_tokens.token_hash IS 'SHA-256 of the token.';
COMMENT ON COLUMN tenancy.refresh_tokens.family_id IS 'The family (token_families.id).';
COMMENT ON COLUMN tenancy.refresh_tokens.tenant_id IS 'The familys tenant.';
COMMENT ON COLUMN tenancy.refresh_tokens.expires_at IS 'When it ends by itself.';
COMMENT ON COLUMN tenancy.refresh_tokens.replaced_at IS 'When it was exchanged for its successor.';
COMMENT ON COLUMN tenancy.refresh_tokens.replaced_by IS 'The successor (refresh_tokens.id).';
COMMENT ON COLUMN tenancy.refresh_tokens.created_at IS 'When it was issued.';
COMMENT ON TABLE tenancy.oauth_codes IS 'Authorization codes (RFC 6749, RFC 7636): ten minutes, single use.';
COMMENT ON COLUMN tenancy.oauth_codes.id IS 'Internal id (UUID version 7).';
COMMENT ON COLUMN tenancy.oauth_codes.code_hash IS 'SHA-256 of the code.';
COMMENT ON COLUMN tenancy.oauth_codes.tenant_id IS 'The organizations tenant, or the users own.';
COMMENT ON COLUMN tenancy.oauth_codes.namespace IS 'Namespace of user and organization.';
COMMENT ON COLUMN tenancy.oauth_codes.user_id IS 'Who authorizes (users.id).';
COMMENT ON COLUMN tenancy.oauth_codes.org_id IS 'External id of the organization it is for; NULL: personal.';
COMMENT ON COLUMN tenancy.oauth_codes.profile IS 'The signing profile of the tokens it is exchanged for.';
COMMENT ON COLUMN tenancy.oauth_codes.code_challenge IS 'base64url(SHA-256(code_verifier)), RFC 7636.';
COMMENT ON COLUMN tenancy.oauth_codes.state_hash IS 'SHA-256 of the clients state.';
COMMENT ON COLUMN tenancy.oauth_codes.redirect_uri IS 'Where the code was sent; compared byte by byte.';
COMMENT ON COLUMN tenancy.oauth_codes.expires_at IS 'When it ends by itself.';
COMMENT ON COLUMN tenancy.oauth_codes.used_at IS 'When it was first presented: it is used up then, whether or not it was exchanged.';
COMMENT ON COLUMN tenancy.oauth_codes.family_id IS 'What it was exchanged for (token_families.id); NULL: nothing.';
COMMENT ON COLUMN tenancy.oauth_codes.created_at IS 'When it was given.';
COMMENT ON TABLE tenancy.api_keys IS 'API keys of organizations. Written by create_, rotate_ and revoke_api_key.';
COMMENT ON COLUMN tenancy.api_keys.id IS 'Internal id (UUID version 7).';
COMMENT ON COLUMN tenancy.api_keys.key_hash IS 'SHA-256 of the key.';
COMMENT ON COLUMN tenancy.api_keys.prefix IS 'The first characters of the key, to recognise it by.';
COMMENT ON COLUMN tenancy.api_keys.tenant_id IS 'The organizations tenant.';
COMMENT ON COLUMN tenancy.api_keys.namespace IS 'Namespace of organization and user.';
COMMENT ON COLUMN tenancy.api_keys.organization_id IS 'The organization (organizations.id).';
COMMENT ON COLUMN tenancy.api_keys.org_id IS 'Its external id.';
COMMENT ON COLUMN tenancy.api_keys.user_id IS 'External id of the user it acts as; NULL: as itself, by its id.';
COMMENT ON COLUMN tenancy.api_keys.role IS 'viewer, operator, admin or owner.';
COMMENT ON COLUMN tenancy.api_keys.name IS 'What its owner calls it.';
COMMENT ON COLUMN tenancy.api_keys.status IS 'active, rotation_pending (good until valid_until) or revoked.';
COMMENT ON COLUMN tenancy.api_keys.for_member IS 'Whether its user belonged to the organization when it was made: it is then good only while the user does.';
COMMENT ON COLUMN tenancy.api_keys.valid_until IS 'When a rotated key ends.';
COMMENT ON COLUMN tenancy.api_keys.replaced_by IS 'The key that replaced it (api_keys.id).';
COMMENT ON COLUMN tenancy.api_keys.last_used_at IS 'When it last authenticated in a read-write READ COMMITTED transaction, to the minute; others are not noted.';
COMMENT ON COLUMN tenancy.api_keys.created_by IS 'Who made it: the authenticated user, else the login (session_user).';
COMMENT ON COLUMN tenancy.api_keys.created_at IS 'When it was made.';
COMMENT ON COLUMN tenancy.api_keys.updated_at IS 'When its status last changed.';
COMMENT ON TABLE tenancy.token_audit_logs IS 'What happened to tokens, codes and keys; append-only. Holds no token and no hash of one.';
COMMENT ON COLUMN tenancy.token_audit_logs.tenant_id IS 'The tenant; empty where none is known, as for a token nobody issued.';
COMMENT ON COLUMN tenancy.token_audit_logs.id IS 'Version 7: sorts by time.';
COMMENT ON COLUMN tenancy.token_audit_logs.action IS 'generated, used, refreshed, revoked or refused.';
COMMENT ON COLUMN tenancy.token_audit_logs.kind IS 'extension_token, authorization_code, refresh_token or api_key.';
COMMENT ON COLUMN tenancy.token_audit_logs.token_id IS 'The rows internal id, if it is known.';
COMMENT ON COLUMN tenancy.token_audit_logs.namespace IS 'Namespace of user and organization.';
COMMENT ON COLUMN tenancy.token_audit_logs.user_id IS 'External id of the user.';
COMMENT ON COLUMN tenancy.token_audit_logs.org_id IS 'External id of the organization.';
COMMENT ON COLUMN tenancy.token_audit_logs.reason IS 'Why it was refused or revoked.';
COMMENT ON COLUMN tenancy.token_audit_logs.correlation_id IS 'The identity''s, where one was in force: follows the work through ledger and events.';
COMMENT ON COLUMN tenancy.token_audit_logs.actor IS 'The login (session_user).';
COMMENT ON COLUMN tenancy.token_audit_logs.created_at IS 'When.';

ALTER TABLE tenancy.signing_profiles ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.signing_profiles FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.signing_profiles TO CURRENT_USER USING (true) WITH CHECK (true);
COMMENT ON POLICY owner_rows ON tenancy.signing_profiles IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
ALTER TABLE tenancy.extension_tokens ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.extension_tokens FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.extension_tokens TO CURRENT_USER USING (true) WITH CHECK (true);
COMMENT ON POLICY owner_rows ON tenancy.extension_tokens IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
ALTER TABLE tenancy.token_families ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.token_families FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.token_families TO CURRENT_USER USING (true) WITH CHECK (true);
COMMENT ON POLICY owner_rows ON tenancy.token_families IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
ALTER TABLE tenancy.refresh_tokens ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.refresh_tokens FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.refresh_tokens TO CURRENT_USER USING (true) WITH CHECK (true);
COMMENT ON POLICY owner_rows ON tenancy.refresh_tokens IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
ALTER TABLE tenancy.oauth_codes ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.oauth_codes FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.oauth_codes TO CURRENT_USER USING (true) WITH CHECK (true);
COMMENT ON POLICY owner_rows ON tenancy.oauth_codes IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
ALTER TABLE tenancy.api_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.api_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.api_keys TO CURRENT_USER USING (true) WITH CHECK (true);
COMMENT ON POLICY owner_rows ON tenancy.api_keys IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
ALTER TABLE tenancy.token_audit_logs ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.token_audit_logs FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.token_audit_logs TO CURRENT_USER USING (true) WITH CHECK (true);
COMMENT ON POLICY owner_rows ON tenancy.token_audit_logs IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
