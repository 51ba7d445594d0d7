-- 0009 batches: work that is done for somebody, from its registration to the results, and the inbox of events.
-- The identity a batch was registered with stands in its row and goes into every event about it.
-- batches, batch_essays and batch_results hold what tenants made, so they are protected exactly as protect_table protects
-- a user's table: its policies bind everybody, operators too, but superusers and roles with BYPASSRLS, one of which owns them.

CREATE TABLE tenancy.batches (
    tenant_id text NOT NULL DEFAULT tenancy.tenant_id(),
    batch_id uuid NOT NULL,
    user_id text NOT NULL,
    org_id text,
    namespace text NOT NULL DEFAULT '',
    class_id text,
    course_code text NOT NULL,
    expected_essay_count integer NOT NULL,
    request jsonb NOT NULL,
    correlation_id uuid NOT NULL,
    timeout_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT batches_pkey PRIMARY KEY (tenant_id, batch_id),
    CONSTRAINT batches_user_id_check CHECK (user_id <> ''),
    CONSTRAINT batches_org_id_check CHECK (org_id <> ''),
    CONSTRAINT batches_expected_essay_count_check CHECK (expected_essay_count > 0)
);
-- For services, which name a batch by its id alone.
CREATE INDEX batches_batch_id_idx ON tenancy.batches (batch_id);

CREATE TABLE tenancy.batch_essays (
    tenant_id text NOT NULL DEFAULT tenancy.tenant_id(),
    batch_id uuid NOT NULL,
    essay_id text NOT NULL,
    status text NOT NULL DEFAULT 'available',
    text_storage_id text,
    reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT batch_essays_pkey PRIMARY KEY (tenant_id, batch_id, essay_id),
    CONSTRAINT batch_essays_batch_fkey FOREIGN KEY (tenant_id, batch_id) REFERENCES tenancy.batches (tenant_id, batch_id),
    CONSTRAINT batch_essays_status_check CHECK (status IN ('available', 'assigned', 'failed')),
    CONSTRAINT batch_essays_text_check CHECK ((status = 'assigned') = (text_storage_id IS NOT NULL))
);

CREATE TABLE tenancy.batch_results (
    tenant_id text NOT NULL DEFAULT tenancy.tenant_id(),
    batch_id uuid NOT NULL,
    essay_id text NOT NULL,
    result jsonb NOT NULL,
    correlation_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT batch_results_pkey PRIMARY KEY (tenant_id, batch_id, essay_id),
    CONSTRAINT batch_results_essay_fkey FOREIGN KEY (tenant_id, batch_id, essay_id)
        REFERENCES tenancy.batch_essays (tenant_id, batch_id, essay_id)
);

CREATE TABLE tenancy.event_inbox (
    tenant_id text NOT NULL,
    event_id uuid NOT NULL,
    body_sha256 text NOT NULL,
    event_type text,
    status text NOT NULL,
    result jsonb NOT NULL DEFAULT '{}',
    user_id text,
    org_id text,
    correlation_id uuid,
    event_timestamp timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT event_inbox_pkey PRIMARY KEY (tenant_id, event_id),
    CONSTRAINT event_inbox_status_check CHECK (status IN ('received', 'processed', 'rejected'))
);
CREATE INDEX event_inbox_age_idx ON tenancy.event_inbox (greatest(received_at, event_timestamp));

CREATE TABLE tenancy.event_inbox_horizons (
    tenant_id text NOT NULL,
    forgotten_through timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT event_inbox_horizons_pkey PRIMARY KEY (tenant_id)
);

ALTER TABLE tenancy.batches ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.batches FORCE ROW LEVEL SECURITY;
CREATE POLICY tenancy_floor ON tenancy.batches AS RESTRICTIVE
    USING (tenant_id = tenancy.tenant_id()) WITH CHECK (tenant_id = tenancy.tenant_id());
CREATE POLICY tenancy_access ON tenancy.batches
    USING (tenant_id = tenancy.tenant_id()) WITH CHECK (tenant_id = tenancy.tenant_id());
COMMENT ON POLICY tenancy_floor ON tenancy.batches IS 'Whatever other policies allow, a row is its tenant''s alone.';
COMMENT ON POLICY tenancy_access ON tenancy.batches IS 'The batches of the identity''s tenant.';
COMMENT ON TABLE tenancy.batches IS 'Batches of essays, with the identity they were registered with.';
COMMENT ON COLUMN tenancy.batches.tenant_id IS 'The tenant it belongs to.';
COMMENT ON COLUMN tenancy.batches.batch_id IS 'The batch.';
COMMENT ON COLUMN tenancy.batches.user_id IS 'External id of who registered it.';
COMMENT ON COLUMN tenancy.batches.org_id IS 'External id of the organization it is attributed to; NULL: personal.';
COMMENT ON COLUMN tenancy.batches.namespace IS 'Namespace of both.';
COMMENT ON COLUMN tenancy.batches.class_id IS 'The class; NULL for a guest batch.';
COMMENT ON COLUMN tenancy.batches.course_code IS 'The course.';
COMMENT ON COLUMN tenancy.batches.expected_essay_count IS 'How many essays it has slots for.';
COMMENT ON COLUMN tenancy.batches.request IS 'What was asked for, whole (BatchRegistrationRequestV1).';
COMMENT ON COLUMN tenancy.batches.correlation_id IS 'Follows the work.';
COMMENT ON COLUMN tenancy.batches.timeout_at IS 'From when a batch with empty slots is overdue.';
COMMENT ON COLUMN tenancy.batches.created_at IS 'When it was registered.';
COMMENT ON COLUMN tenancy.batches.updated_at IS 'When it last changed.';

ALTER TABLE tenancy.batch_essays ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.batch_essays FORCE ROW LEVEL SECURITY;
CREATE POLICY tenancy_floor ON tenancy.batch_essays AS RESTRICTIVE
    USING (tenant_id = tenancy.tenant_id()) WITH CHECK (tenant_id = tenancy.tenant_id());
CREATE POLICY tenancy_access ON tenancy.batch_essays
    USING (tenant_id = tenancy.tenant_id()) WITH CHECK (tenant_id = tenancy.tenant_id());
COMMENT ON POLICY tenancy_floor ON tenancy.batch_essays IS 'Whatever other policies allow, a row is its tenant''s alone.';
COMMENT ON POLICY tenancy_access ON tenancy.batch_essays IS 'The essays of the identity''s tenant.';
COMMENT ON TABLE tenancy.batch_essays IS 'The slots of a batch.';
COMMENT ON COLUMN tenancy.batch_essays.tenant_id IS 'The tenant it belongs to.';
COMMENT ON COLUMN tenancy.batch_essays.batch_id IS 'The batch.';
COMMENT ON COLUMN tenancy.batch_essays.essay_id IS 'The essay.';
COMMENT ON COLUMN tenancy.batch_essays.status IS 'available (empty), assigned (a text is there) or failed.';
COMMENT ON COLUMN tenancy.batch_essays.text_storage_id IS 'Where the text is stored; exactly while assigned.';
COMMENT ON COLUMN tenancy.batch_essays.reason IS 'Why it failed, if said.';
COMMENT ON COLUMN tenancy.batch_essays.created_at IS 'When the slot was made.';
COMMENT ON COLUMN tenancy.batch_essays.updated_at IS 'When it last changed.';

ALTER TABLE tenancy.batch_results ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.batch_results FORCE ROW LEVEL SECURITY;
CREATE POLICY tenancy_floor ON tenancy.batch_results AS RESTRICTIVE
    USING (tenant_id = tenancy.tenant_id()) WITH CHECK (tenant_id = tenancy.tenant_id());
CREATE POLICY tenancy_access ON tenancy.batch_results
    USING (tenant_id = tenancy.tenant_id()) WITH CHECK (tenant_id = tenancy.tenant_id());
COMMENT ON POLICY tenancy_floor ON tenancy.batch_results IS 'Whatever other policies allow, a row is its tenant''s alone.';
COMMENT ON POLICY tenancy_access ON tenancy.batch_results IS 'The results of the identity''s tenant.';
COMMENT ON TABLE tenancy.batch_results IS 'What came of the essays.';
COMMENT ON COLUMN tenancy.batch_results.tenant_id IS 'The tenant it belongs to.';
COMMENT ON COLUMN tenancy.batch_results.batch_id IS 'The batch.';
COMMENT ON COLUMN tenancy.batch_results.essay_id IS 'The essay.';
COMMENT ON COLUMN tenancy.batch_results.result IS 'The result, in the words of the service that made it.';
COMMENT ON COLUMN tenancy.batch_results.correlation_id IS 'Follows the work.';
COMMENT ON COLUMN tenancy.batch_results.created_at IS 'When the first result came.';
COMMENT ON COLUMN tenancy.batch_results.updated_at IS 'When it last changed.';

ALTER TABLE tenancy.event_inbox ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.event_inbox FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.event_inbox TO CURRENT_USER USING (true) WITH CHECK (true);
COMMENT ON POLICY owner_rows ON tenancy.event_inbox IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON TABLE tenancy.event_inbox IS 'Events that were received, so that each counts once. Oldest removed by tenancy.trim_inbox().';
COMMENT ON COLUMN tenancy.event_inbox.tenant_id IS 'The tenant the event is attributed to; empty where an event could not be read.';
COMMENT ON COLUMN tenancy.event_inbox.event_id IS 'The event''s id; of a rejected event an id derived from its text, so that it blocks no other.';
COMMENT ON COLUMN tenancy.event_inbox.body_sha256 IS 'SHA-256 in hex of {"data", "event_id"} as contract H writes it: the same id with another body is refused.';
COMMENT ON COLUMN tenancy.event_inbox.event_type IS 'As it was sent.';
COMMENT ON COLUMN tenancy.event_inbox.status IS 'processed or rejected; received only within the transaction that takes it.';
COMMENT ON COLUMN tenancy.event_inbox.result IS 'What came of it; a business denial stands here too.';
COMMENT ON COLUMN tenancy.event_inbox.user_id IS 'Who it is attributed to.';
COMMENT ON COLUMN tenancy.event_inbox.org_id IS 'The organization it is attributed to.';
COMMENT ON COLUMN tenancy.event_inbox.correlation_id IS 'Follows the work.';
COMMENT ON COLUMN tenancy.event_inbox.event_timestamp IS 'When it happened, by the sender''s clock.';
COMMENT ON COLUMN tenancy.event_inbox.received_at IS 'When it was first received.';

ALTER TABLE tenancy.event_inbox_horizons ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.event_inbox_horizons FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.event_inbox_horizons TO CURRENT_USER USING (true) WITH CHECK (true);
COMMENT ON POLICY owner_rows ON tenancy.event_inbox_horizons IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON TABLE tenancy.event_inbox_horizons IS 'Up to when a tenant''s inbox was trimmed: an unknown event that is not younger may be a redelivery, and is refused.';
COMMENT ON COLUMN tenancy.event_inbox_horizons.tenant_id IS 'The tenant.';
COMMENT ON COLUMN tenancy.event_inbox_horizons.forgotten_through IS 'The youngest event that was removed: the later of its own time and its receipt.';
COMMENT ON COLUMN tenancy.event_inbox_horizons.updated_at IS 'When it last changed.';
