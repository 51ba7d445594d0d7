-- 0010 agents: modules of organizations, the credentials they use, the states of their conversations.
--
-- Every key begins with the tenant and names the namespace: two namespaces may share a tenant, and then an external id
-- of one is not the same id of the other.

CREATE TABLE tenancy.modules (
    tenant_id text NOT NULL,
    namespace text NOT NULL DEFAULT '',
    org_id text NOT NULL DEFAULT 'default',
    module_id text NOT NULL,
    name text NOT NULL,
    category text NOT NULL,
    platform text NOT NULL,
    status text NOT NULL DEFAULT 'pending',
    health_status text NOT NULL DEFAULT 'unknown',
    manifest jsonb NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    failure_count bigint NOT NULL DEFAULT 0,
    success_count bigint NOT NULL DEFAULT 0,
    last_used timestamptz,
    CONSTRAINT modules_pkey PRIMARY KEY (tenant_id, namespace, org_id, module_id),
    CONSTRAINT modules_module_id_check CHECK (module_id = category || '/' || platform),
    CONSTRAINT modules_status_check CHECK (status IN
        ('pending', 'validating', 'validated', 'approved', 'installed', 'disabled', 'failed', 'uninstalled')),
    CONSTRAINT modules_manifest_check CHECK (jsonb_typeof(manifest) = 'object'),
    CONSTRAINT modules_counts_check CHECK (failure_count >= 0 AND success_count >= 0)
);

CREATE TABLE tenancy.module_credentials (
    tenant_id text NOT NULL,
    namespace text NOT NULL DEFAULT '',
    org_id text NOT NULL DEFAULT 'default',
    module_id text NOT NULL,
    sealed_secret bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT module_credentials_pkey PRIMARY KEY (tenant_id, namespace, org_id, module_id)
);

CREATE TABLE tenancy.agent_states (
    tenant_id text NOT NULL,
    namespace text NOT NULL DEFAULT '',
    org_id text NOT NULL DEFAULT '',
    user_id text NOT NULL,
    conversation_id text NOT NULL,
    version bigint NOT NULL DEFAULT 1,
    state jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT agent_states_pkey PRIMARY KEY (tenant_id, namespace, org_id, user_id, conversation_id),
    CONSTRAINT agent_states_version_check CHECK (version > 0),
    -- What the state says of itself cannot differ from whose it is.
    CONSTRAINT agent_states_state_check CHECK (
        jsonb_typeof(state) = 'object'
        AND state ->> 'conversation_id' = conversation_id
        AND state ->> 'user_id' = user_id
        AND coalesce(state ->> 'org_id', '') = org_id)
) WITH (fillfactor = 70);

-- Row-level security, by the sealed identity alone. tenancy._module_org() is org_id(), or the organization 'default' of
-- a personal tenant where the setting allows it. has_permission stands in the value that org_id is compared with, so
-- that an index scan judges it once and not once a row.

ALTER TABLE tenancy.modules ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.modules FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.modules TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY org_rows ON tenancy.modules FOR SELECT
    USING (tenant_id = tenancy.tenant_id()
           AND namespace = tenancy.identity_namespace()
           AND org_id = CASE WHEN tenancy.has_permission('read_config') THEN tenancy._module_org() END);

ALTER TABLE tenancy.module_credentials ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.module_credentials FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.module_credentials TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY org_rows ON tenancy.module_credentials FOR SELECT
    USING (tenant_id = tenancy.tenant_id()
           AND namespace = tenancy.identity_namespace()
           AND org_id = CASE WHEN tenancy.has_permission('read_config') THEN tenancy._module_org() END);

ALTER TABLE tenancy.agent_states ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.agent_states FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.agent_states TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY own_rows ON tenancy.agent_states FOR SELECT
    USING (tenant_id = tenancy.tenant_id()
           AND namespace = tenancy.identity_namespace()
           AND org_id = coalesce(tenancy.org_id(), '')
           AND user_id = tenancy.user_id());

COMMENT ON TABLE tenancy.modules IS
'Modules each organization has installed; changed by install_module, enable_module, disable_module, uninstall_module and the functions of the service role.';
COMMENT ON COLUMN tenancy.modules.tenant_id IS 'The organization''s tenant.';
COMMENT ON COLUMN tenancy.modules.namespace IS 'Namespace of org_id.';
COMMENT ON COLUMN tenancy.modules.org_id IS 'External id of the organization; ''default'' in a personal tenant.';
COMMENT ON COLUMN tenancy.modules.module_id IS 'category/platform.';
COMMENT ON COLUMN tenancy.modules.name IS 'The manifest''s name, else the platform.';
COMMENT ON COLUMN tenancy.modules.category IS 'What stands before the slash of module_id.';
COMMENT ON COLUMN tenancy.modules.platform IS 'What stands after the slash of module_id.';
COMMENT ON COLUMN tenancy.modules.status IS 'pending, validating, validated, approved, installed, disabled, failed or uninstalled.';
COMMENT ON COLUMN tenancy.modules.health_status IS 'What update_module_health last said; unknown at first.';
COMMENT ON COLUMN tenancy.modules.manifest IS 'The manifest, a JSON object of at most 64 KiB. No place for secrets: whoever may read the configuration reads it.';
COMMENT ON COLUMN tenancy.modules.installed_at IS 'When it was first installed; kept by a later install.';
COMMENT ON COLUMN tenancy.modules.updated_at IS 'When the row last changed.';
COMMENT ON COLUMN tenancy.modules.failure_count IS 'Failures reported by update_module_health; kept by a later install.';
COMMENT ON COLUMN tenancy.modules.success_count IS 'Uses reported by record_module_usage; kept by a later install.';
COMMENT ON COLUMN tenancy.modules.last_used IS 'When record_module_usage last reported a use.';

COMMENT ON TABLE tenancy.module_credentials IS
'Secrets of the modules, sealed under the master key and bound to tenant, organization and module: a row moved elsewhere does not open. Changed by store_credential and delete_credential; opened by retrieve_credential.';
COMMENT ON COLUMN tenancy.module_credentials.tenant_id IS 'The organization''s tenant.';
COMMENT ON COLUMN tenancy.module_credentials.namespace IS 'Namespace of org_id.';
COMMENT ON COLUMN tenancy.module_credentials.org_id IS 'External id of the organization; ''default'' in a personal tenant.';
COMMENT ON COLUMN tenancy.module_credentials.module_id IS 'category/platform; the module need not be installed.';
COMMENT ON COLUMN tenancy.module_credentials.sealed_secret IS 'AES-256-GCM under the master key. Granted to no role.';
COMMENT ON COLUMN tenancy.module_credentials.created_at IS 'When a credential was first stored; kept when it is replaced.';
COMMENT ON COLUMN tenancy.module_credentials.updated_at IS 'When it was last replaced.';

COMMENT ON TABLE tenancy.agent_states IS
'The state of each conversation with an agent, bound to one user in one organization (contract G, AgentState); changed by create_agent_state, save_agent_state and delete_agent_state.';
COMMENT ON COLUMN tenancy.agent_states.tenant_id IS 'The tenant.';
COMMENT ON COLUMN tenancy.agent_states.namespace IS 'Namespace of org_id and user_id.';
COMMENT ON COLUMN tenancy.agent_states.org_id IS 'External id of the organization; the empty string: a personal conversation.';
COMMENT ON COLUMN tenancy.agent_states.user_id IS 'External id of the user whose conversation it is.';
COMMENT ON COLUMN tenancy.agent_states.conversation_id IS 'The conversation; unique for its user and organization.';
COMMENT ON COLUMN tenancy.agent_states.version IS 'Grows by one with each save; a save must name the one it read.';
COMMENT ON COLUMN tenancy.agent_states.state IS 'The fields of the contract and whatever the product adds; at most 1 MiB.';
COMMENT ON COLUMN tenancy.agent_states.created_at IS 'When the conversation began.';
COMMENT ON COLUMN tenancy.agent_states.updated_at IS 'When it was last saved.';

COMMENT ON POLICY owner_rows ON tenancy.modules IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY owner_rows ON tenancy.module_credentials IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY owner_rows ON tenancy.agent_states IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY org_rows ON tenancy.modules IS 'The modules of the identity''s organization, for who may read the configuration.';
COMMENT ON POLICY org_rows ON tenancy.module_credentials IS
'Which credentials the identity''s organization has, for who may read the configuration; the secret itself is granted to no role.';
COMMENT ON POLICY own_rows ON tenancy.agent_states IS 'The identity''s own conversations in its organization.';
