-- What poll_events gives.

CREATE TYPE tenancy.event AS (
    event_id uuid,
    tenant_id text,
    aggregatetype text,
    aggregateid text,
    sequence bigint,
    type text,
    payload jsonb,
    attempts integer,
    created_at timestamptz
);

COMMENT ON TYPE tenancy.event IS 'An event as poll_events hands it out.';
COMMENT ON COLUMN tenancy.event.event_id IS 'Its id, for ack_events.';
COMMENT ON COLUMN tenancy.event.tenant_id IS 'The tenant it belongs to.';
COMMENT ON COLUMN tenancy.event.aggregatetype IS 'Kind of what it is about.';
COMMENT ON COLUMN tenancy.event.aggregateid IS 'Id of what it is about.';
COMMENT ON COLUMN tenancy.event.sequence IS 'Its place among the events about the same.';
COMMENT ON COLUMN tenancy.event.type IS 'The event''s topic.';
COMMENT ON COLUMN tenancy.event.payload IS 'The whole envelope (contract H).';
COMMENT ON COLUMN tenancy.event.attempts IS 'The number of this try; 0 where it follows one of the same aggregate in the same answer.';
COMMENT ON COLUMN tenancy.event.created_at IS 'When it was published.';
