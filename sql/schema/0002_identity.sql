-- 0002 identity: whose tokens are believed, with which keys, and which of them no longer are.
-- Directory tables: they stay small, and no role but the extension's owner reads them.

CREATE TABLE tenancy.issuers (
    issuer text NOT NULL,
    audiences text[] NOT NULL,
    profile text NOT NULL DEFAULT 'generic',
    namespace text NOT NULL DEFAULT '',
    algorithms text[],
    leeway_seconds integer NOT NULL DEFAULT 0,
    token_types text[],
    claim_paths jsonb,
    require_expiry boolean NOT NULL DEFAULT true,
    authorized_parties text[],
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT issuers_pkey PRIMARY KEY (issuer),
    CONSTRAINT issuers_issuer_check CHECK (issuer <> ''),
    CONSTRAINT issuers_leeway_check CHECK (leeway_seconds BETWEEN 0 AND 300)
);

CREATE TABLE tenancy.issuer_keys (
    issuer text NOT NULL,
    kid text NOT NULL,
    algorithm text,
    public_jwk jsonb,
    sealed_secret bytea,
    origin text NOT NULL,
    not_before timestamptz,
    not_after timestamptz,
    retired_at timestamptz,
    retired_by text,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT issuer_keys_pkey PRIMARY KEY (issuer, kid),
    CONSTRAINT issuer_keys_issuer_fkey FOREIGN KEY (issuer) REFERENCES tenancy.issuers (issuer),
    CONSTRAINT issuer_keys_material_check CHECK (num_nonnulls(public_jwk, sealed_secret) = 1),
    CONSTRAINT issuer_keys_retired_check CHECK ((retired_at IS NULL) = (retired_by IS NULL)),
    CONSTRAINT issuer_keys_window_check CHECK (not_after > not_before),
    CONSTRAINT issuer_keys_origin_check CHECK (origin IN ('add_key', 'set_jwks', 'add_secret', 'signing_profile'))
);

CREATE TABLE tenancy.revocations (
    kind text NOT NULL,
    scope text NOT NULL,
    value text NOT NULL,
    revoked_at timestamptz NOT NULL DEFAULT now(),
    revoked_by text NOT NULL DEFAULT session_user,
    expires_at timestamptz,
    CONSTRAINT revocations_pkey PRIMARY KEY (kind, scope, value),
    CONSTRAINT revocations_kind_check CHECK (kind IN ('token', 'session', 'user'))
);

CREATE TABLE tenancy.audit_log (
    tenant_id text NOT NULL,
    id uuid NOT NULL DEFAULT tenancy.uuid_v7(),
    action text NOT NULL,
    actor text NOT NULL DEFAULT session_user,
    user_id text,
    org_id text,
    namespace text NOT NULL DEFAULT '',
    reason text,
    correlation_id text,
    backend_pid integer NOT NULL DEFAULT pg_backend_pid(),
    detail jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT audit_log_pkey PRIMARY KEY (tenant_id, id)
);
-- For trimming, oldest first.
CREATE INDEX audit_log_created_at_idx ON tenancy.audit_log (created_at);

COMMENT ON TABLE tenancy.issuers IS 'Issuers whose tokens are believed (the iss claim, RFC 7519), and how their claims are read.';
COMMENT ON COLUMN tenancy.issuers.issuer IS 'Exactly what stands in iss.';
COMMENT ON COLUMN tenancy.issuers.audiences IS 'A token must name one of these in aud; none: its tokens carry no aud, and one that does is refused.';
COMMENT ON COLUMN tenancy.issuers.profile IS 'How claims are read: generic, clerk, auth0, workos, supabase or pooled.';
COMMENT ON COLUMN tenancy.issuers.namespace IS 'Namespace of the subjects and organizations; issuers that share one share them on purpose.';
COMMENT ON COLUMN tenancy.issuers.algorithms IS 'Algorithms allowed (RFC 7518, RFC 8037); NULL: whatever the key is for.';
COMMENT ON COLUMN tenancy.issuers.leeway_seconds IS 'Clock skew allowed for exp, nbf and iat, in seconds.';
COMMENT ON COLUMN tenancy.issuers.token_types IS 'Kinds of token allowed (header typ or claim type); NULL: access tokens.';
COMMENT ON COLUMN tenancy.issuers.claim_paths IS 'Overrides of the profile: for each field a list of claim paths, the first trimmed non-empty string wins.';
COMMENT ON COLUMN tenancy.issuers.require_expiry IS 'Whether a token without exp is refused.';
COMMENT ON COLUMN tenancy.issuers.authorized_parties IS 'Allowed azp values; NULL: any.';
COMMENT ON COLUMN tenancy.issuers.created_at IS 'When the issuer was added.';
COMMENT ON COLUMN tenancy.issuers.updated_at IS 'When its configuration last changed.';
COMMENT ON TABLE tenancy.issuer_keys IS 'Keys of the issuers. Secrets are sealed under the master key; public keys are as they were published.';
COMMENT ON COLUMN tenancy.issuer_keys.issuer IS 'Whose key it is.';
COMMENT ON COLUMN tenancy.issuer_keys.kid IS 'Key id (RFC 7517); for a key without one its RFC 7638 thumbprint.';
COMMENT ON COLUMN tenancy.issuer_keys.algorithm IS 'The algorithm the key is bound to; NULL: any that fits its type.';
COMMENT ON COLUMN tenancy.issuer_keys.public_jwk IS 'The public key (RFC 7517).';
COMMENT ON COLUMN tenancy.issuer_keys.sealed_secret IS 'An HMAC secret, AES-256-GCM under the master key.';
COMMENT ON COLUMN tenancy.issuer_keys.origin IS 'The function that brought it.';
COMMENT ON COLUMN tenancy.issuer_keys.not_before IS 'Not used before this time.';
COMMENT ON COLUMN tenancy.issuer_keys.not_after IS 'Not used after this time.';
COMMENT ON COLUMN tenancy.issuer_keys.retired_at IS 'Not used any more since this time.';
COMMENT ON COLUMN tenancy.issuer_keys.retired_by IS 'What retired it: retire_key (for good) or set_jwks (the set no longer has it).';
COMMENT ON COLUMN tenancy.issuer_keys.created_at IS 'When it was added.';
COMMENT ON TABLE tenancy.revocations IS 'Tokens, sessions and users that are refused although their tokens still verify.';
COMMENT ON COLUMN tenancy.revocations.kind IS 'token (by jti), session (by sid) or user (by subject).';
COMMENT ON COLUMN tenancy.revocations.scope IS 'The issuer of the token or session; the namespace of the user.';
COMMENT ON COLUMN tenancy.revocations.value IS 'The jti, the session id or the user''s external id.';
COMMENT ON COLUMN tenancy.revocations.revoked_at IS 'When it was revoked. A user''s tokens issued later are accepted again.';
COMMENT ON COLUMN tenancy.revocations.revoked_by IS 'The login that revoked it.';
COMMENT ON COLUMN tenancy.revocations.expires_at IS 'When the row may be removed, the token having expired by itself.';
COMMENT ON TABLE tenancy.audit_log IS 'What was done in somebody''s name, and by whom. Append-only.';
COMMENT ON COLUMN tenancy.audit_log.tenant_id IS 'The tenant acted in; empty where none is known.';
COMMENT ON COLUMN tenancy.audit_log.id IS 'Version 7: sorts by time.';
COMMENT ON COLUMN tenancy.audit_log.action IS 'What was done, for example act_as.';
COMMENT ON COLUMN tenancy.audit_log.actor IS 'The login (session_user).';
COMMENT ON COLUMN tenancy.audit_log.user_id IS 'External id of the user acted for.';
COMMENT ON COLUMN tenancy.audit_log.org_id IS 'External id of the organization acted for.';
COMMENT ON COLUMN tenancy.audit_log.namespace IS 'Namespace of both.';
COMMENT ON COLUMN tenancy.audit_log.reason IS 'Why, in the caller''s words.';
COMMENT ON COLUMN tenancy.audit_log.correlation_id IS 'Follows the work through ledger and events.';
COMMENT ON COLUMN tenancy.audit_log.backend_pid IS 'Process of the backend.';
COMMENT ON COLUMN tenancy.audit_log.detail IS 'More, by action.';
COMMENT ON COLUMN tenancy.audit_log.created_at IS 'When.';

CREATE VIEW tenancy.issuer_key_status WITH (security_invoker = true) AS
SELECT k.issuer, k.kid, k.algorithm, coalesce(k.public_jwk ->> 'kty', 'oct') AS key_type,
       CASE WHEN k.retired_at IS NOT NULL THEN 'retired'
            WHEN k.not_before > now() THEN 'pending'
            WHEN k.not_after <= now() THEN 'ended'
            ELSE 'usable'
       END AS status,
       k.origin, k.not_before, k.not_after, k.retired_at, k.retired_by, k.created_at, k.public_jwk
  FROM tenancy.issuer_keys AS k;

COMMENT ON VIEW tenancy.issuer_key_status IS 'The issuers'' keys without their secrets, for operators: which are usable now.';
COMMENT ON COLUMN tenancy.issuer_key_status.issuer IS 'Whose key it is.';
COMMENT ON COLUMN tenancy.issuer_key_status.kid IS 'Key id.';
COMMENT ON COLUMN tenancy.issuer_key_status.algorithm IS 'The algorithm the key is bound to; NULL: any that fits its type.';
COMMENT ON COLUMN tenancy.issuer_key_status.key_type IS 'RSA, EC, OKP, or oct for a shared secret (RFC 7518 §6.1).';
COMMENT ON COLUMN tenancy.issuer_key_status.status IS 'usable; pending before not_before; ended from not_after on; retired.';
COMMENT ON COLUMN tenancy.issuer_key_status.origin IS 'The function that brought it.';
COMMENT ON COLUMN tenancy.issuer_key_status.not_before IS 'Not used before this time.';
COMMENT ON COLUMN tenancy.issuer_key_status.not_after IS 'Not used from this time on.';
COMMENT ON COLUMN tenancy.issuer_key_status.retired_at IS 'Not used any more since this time.';
COMMENT ON COLUMN tenancy.issuer_key_status.retired_by IS 'What retired it: retire_key (for good) or set_jwks (the set no longer has it).';
COMMENT ON COLUMN tenancy.issuer_key_status.created_at IS 'When it was added.';
COMMENT ON COLUMN tenancy.issuer_key_status.public_jwk IS 'The public key; NULL for a shared secret.';

ALTER TABLE tenancy.issuers ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.issuers FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.issuers TO CURRENT_USER USING (true) WITH CHECK (true);
ALTER TABLE tenancy.issuer_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.issuer_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.issuer_keys TO CURRENT_USER USING (true) WITH CHECK (true);
ALTER TABLE tenancy.revocations ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.revocations FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.revocations TO CURRENT_USER USING (true) WITH CHECK (true);
ALTER TABLE tenancy.audit_log ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.audit_log FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.audit_log TO CURRENT_USER USING (true) WITH CHECK (true);

COMMENT ON POLICY owner_rows ON tenancy.issuers IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY owner_rows ON tenancy.issuer_keys IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY owner_rows ON tenancy.revocations IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY owner_rows ON tenancy.audit_log IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
