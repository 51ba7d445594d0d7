-- 0005 outbox: what happened, to be told to others, and how far each consumer is.
-- Rows of event_outbox are written once, in the transaction of what they tell, and never updated: Debezium's outbox
-- router takes an UPDATE for an error. Its column names are the router's defaults.
-- Order within an aggregate comes from event_streams: whoever publishes holds the stream's row until the commit, so a
-- higher sequence never becomes visible before a lower one. That is why delivery may go by sequence; a position over all
-- aggregates (an id, a time) would pass over rows of transactions that commit late.
-- What is still to be delivered is a row of event_deliveries for each consumer, written with the event.

CREATE TABLE tenancy.event_streams (
    tenant_id text NOT NULL,
    aggregatetype varchar(255) NOT NULL,
    aggregateid varchar(255) NOT NULL,
    last_sequence bigint NOT NULL,
    CONSTRAINT event_streams_pkey PRIMARY KEY (tenant_id, aggregatetype, aggregateid),
    CONSTRAINT event_streams_last_sequence_check CHECK (last_sequence > 0)
) WITH (fillfactor = 50);

CREATE TABLE tenancy.event_stream_horizons (
    tenant_id text NOT NULL,
    forgotten_sequence bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT event_stream_horizons_pkey PRIMARY KEY (tenant_id)
);

CREATE TABLE tenancy.event_outbox (
    tenant_id text NOT NULL,
    id uuid NOT NULL,
    aggregatetype varchar(255) NOT NULL,
    aggregateid varchar(255) NOT NULL,
    type varchar(255) NOT NULL,
    payload jsonb NOT NULL,
    sequence bigint NOT NULL,
    correlation_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT event_outbox_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT event_outbox_sequence_key UNIQUE (tenant_id, aggregatetype, aggregateid, sequence)
);
-- For trimming, oldest first.
CREATE INDEX event_outbox_created_at_idx ON tenancy.event_outbox (created_at);

CREATE TABLE tenancy.event_consumers (
    consumer text NOT NULL,
    topics text[],
    visibility_timeout interval NOT NULL DEFAULT '30 seconds',
    max_attempts integer NOT NULL DEFAULT 10,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT event_consumers_pkey PRIMARY KEY (consumer),
    CONSTRAINT event_consumers_visibility_timeout_check CHECK (visibility_timeout > interval '0'),
    CONSTRAINT event_consumers_max_attempts_check CHECK (max_attempts > 0)
);

CREATE TABLE tenancy.event_deliveries (
    tenant_id text NOT NULL,
    consumer text NOT NULL,
    aggregatetype varchar(255) NOT NULL,
    aggregateid varchar(255) NOT NULL,
    sequence bigint NOT NULL,
    event_id uuid NOT NULL,
    slot integer NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    visible_at timestamptz NOT NULL DEFAULT '-infinity',
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT event_deliveries_pkey PRIMARY KEY (tenant_id, consumer, aggregatetype, aggregateid, sequence)
) WITH (fillfactor = 70);
-- The first pending event of each aggregate is found by jumping through this index; slot spreads the aggregates.
CREATE INDEX event_deliveries_order_idx
    ON tenancy.event_deliveries (consumer, slot, tenant_id, aggregatetype, aggregateid, sequence);
CREATE INDEX event_deliveries_event_idx ON tenancy.event_deliveries (event_id, consumer);

CREATE TABLE tenancy.event_dead_letters (
    tenant_id text NOT NULL,
    consumer text NOT NULL,
    event_id uuid NOT NULL,
    aggregatetype varchar(255) NOT NULL,
    aggregateid varchar(255) NOT NULL,
    sequence bigint NOT NULL,
    attempts integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT event_dead_letters_pkey PRIMARY KEY (tenant_id, consumer, event_id)
);

CREATE VIEW tenancy.outbox_messages WITH (security_invoker = true) AS
SELECT o.id,
       o.aggregatetype AS aggregate_type,
       o.aggregateid AS aggregate_id,
       o.type AS event_type,
       o.payload AS event_data,
       o.aggregateid AS event_key,
       o.type AS topic,
       o.created_at,
       CASE WHEN d.attempts IS NULL THEN o.created_at END AS published_at,
       coalesce(d.attempts, 0) AS retry_count,
       CASE WHEN EXISTS (SELECT FROM tenancy.event_dead_letters AS l
                          WHERE l.tenant_id = o.tenant_id AND l.event_id = o.id)
            THEN 'given up by a consumer' END AS last_error,
       o.tenant_id
  FROM tenancy.event_outbox AS o
  LEFT JOIN LATERAL (
      SELECT max(p.attempts) AS attempts
        FROM tenancy.event_deliveries AS p
       WHERE p.tenant_id = o.tenant_id AND p.event_id = o.id) AS d ON true;

ALTER TABLE tenancy.event_streams ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.event_streams FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.event_streams TO CURRENT_USER USING (true) WITH CHECK (true);
COMMENT ON POLICY owner_rows ON tenancy.event_streams IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON TABLE tenancy.event_streams IS 'One row for each aggregate the outbox holds events about: the lock that orders them. Removed by trim_events with the last of them.';
COMMENT ON COLUMN tenancy.event_streams.tenant_id IS 'The tenant the event belongs to.';
COMMENT ON COLUMN tenancy.event_streams.aggregatetype IS 'Kind of the aggregate.';
COMMENT ON COLUMN tenancy.event_streams.aggregateid IS 'Its id.';
COMMENT ON COLUMN tenancy.event_streams.last_sequence IS 'Sequence of its newest event.';

ALTER TABLE tenancy.event_stream_horizons ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.event_stream_horizons FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.event_stream_horizons TO CURRENT_USER USING (true) WITH CHECK (true);
COMMENT ON POLICY owner_rows ON tenancy.event_stream_horizons IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON TABLE tenancy.event_stream_horizons IS 'Where the sequences of new aggregates begin, so that one that was forgotten and comes back never goes backwards.';
COMMENT ON COLUMN tenancy.event_stream_horizons.tenant_id IS 'The tenant.';
COMMENT ON COLUMN tenancy.event_stream_horizons.forgotten_sequence IS 'The highest last_sequence of its aggregates that were removed from event_streams.';
COMMENT ON COLUMN tenancy.event_stream_horizons.updated_at IS 'When it last changed.';

ALTER TABLE tenancy.event_outbox ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.event_outbox FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.event_outbox TO CURRENT_USER USING (true) WITH CHECK (true);
COMMENT ON POLICY owner_rows ON tenancy.event_outbox IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON TABLE tenancy.event_outbox IS 'Events as they happened, oldest removed by tenancy.trim_events(). Written by publish_event and the functions that publish; never updated.';
COMMENT ON COLUMN tenancy.event_outbox.tenant_id IS 'The tenant the event belongs to.';
COMMENT ON COLUMN tenancy.event_outbox.id IS 'The event''s id, the same as in the envelope: consumers recognize a redelivery by it.';
COMMENT ON COLUMN tenancy.event_outbox.aggregatetype IS 'What the event is about: batch, credit_balance_org, …. Debezium routes by it, or by type.';
COMMENT ON COLUMN tenancy.event_outbox.aggregateid IS 'Its id; the message key, so that order is kept.';
COMMENT ON COLUMN tenancy.event_outbox.type IS 'The event''s topic, such as huleedu.batch.essays.registered.v1.';
COMMENT ON COLUMN tenancy.event_outbox.payload IS 'The whole envelope (contract H).';
COMMENT ON COLUMN tenancy.event_outbox.sequence IS 'Rises by one within the aggregate, in the order of the commits. From 1, or from above what was forgotten (event_stream_horizons).';
COMMENT ON COLUMN tenancy.event_outbox.correlation_id IS 'Follows the work; the envelope''s.';
COMMENT ON COLUMN tenancy.event_outbox.created_at IS 'Begin of the transaction that published it.';

ALTER TABLE tenancy.event_consumers ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.event_consumers FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.event_consumers TO CURRENT_USER USING (true) WITH CHECK (true);
COMMENT ON POLICY owner_rows ON tenancy.event_consumers IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON TABLE tenancy.event_consumers IS 'Who reads the outbox with poll_events. One row for each; a consumer that reads it by logical decoding has none.';
COMMENT ON COLUMN tenancy.event_consumers.consumer IS 'Its name.';
COMMENT ON COLUMN tenancy.event_consumers.topics IS 'The event types it is given; NULL: all.';
COMMENT ON COLUMN tenancy.event_consumers.visibility_timeout IS 'How long an event that was handed out is hidden, before it is given out again.';
COMMENT ON COLUMN tenancy.event_consumers.max_attempts IS 'How often the first event of an aggregate is given out before it becomes a dead letter.';
COMMENT ON COLUMN tenancy.event_consumers.created_at IS 'When the consumer was made.';
COMMENT ON COLUMN tenancy.event_consumers.updated_at IS 'When it last changed.';

ALTER TABLE tenancy.event_deliveries ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.event_deliveries FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.event_deliveries TO CURRENT_USER USING (true) WITH CHECK (true);
COMMENT ON POLICY owner_rows ON tenancy.event_deliveries IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON TABLE tenancy.event_deliveries IS 'Events a consumer has not acknowledged yet: one row for each event and consumer, deleted by ack_events.';
COMMENT ON COLUMN tenancy.event_deliveries.tenant_id IS 'The tenant the event belongs to.';
COMMENT ON COLUMN tenancy.event_deliveries.consumer IS 'event_consumers.consumer.';
COMMENT ON COLUMN tenancy.event_deliveries.aggregatetype IS 'As in event_outbox.';
COMMENT ON COLUMN tenancy.event_deliveries.aggregateid IS 'As in event_outbox.';
COMMENT ON COLUMN tenancy.event_deliveries.sequence IS 'As in event_outbox.';
COMMENT ON COLUMN tenancy.event_deliveries.event_id IS 'event_outbox.id.';
COMMENT ON COLUMN tenancy.event_deliveries.slot IS 'A hash of the aggregate: polling begins at a random one, so that none is passed over for long.';
COMMENT ON COLUMN tenancy.event_deliveries.attempts IS 'How often it was given out as the first of its aggregate.';
COMMENT ON COLUMN tenancy.event_deliveries.visible_at IS 'Until when it is hidden; -infinity: never given out.';
COMMENT ON COLUMN tenancy.event_deliveries.created_at IS 'When it was queued.';

ALTER TABLE tenancy.event_dead_letters ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.event_dead_letters FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.event_dead_letters TO CURRENT_USER USING (true) WITH CHECK (true);
COMMENT ON POLICY owner_rows ON tenancy.event_dead_letters IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON TABLE tenancy.event_dead_letters IS 'Events a consumer never acknowledged in max_attempts tries. tenancy.requeue_event() gives one out again.';
COMMENT ON COLUMN tenancy.event_dead_letters.tenant_id IS 'The tenant the event belongs to.';
COMMENT ON COLUMN tenancy.event_dead_letters.consumer IS 'event_consumers.consumer.';
COMMENT ON COLUMN tenancy.event_dead_letters.event_id IS 'event_outbox.id.';
COMMENT ON COLUMN tenancy.event_dead_letters.aggregatetype IS 'As in event_outbox.';
COMMENT ON COLUMN tenancy.event_dead_letters.aggregateid IS 'As in event_outbox.';
COMMENT ON COLUMN tenancy.event_dead_letters.sequence IS 'As in event_outbox.';
COMMENT ON COLUMN tenancy.event_dead_letters.attempts IS 'How often it was given out.';
COMMENT ON COLUMN tenancy.event_dead_letters.created_at IS 'When it was given up.';

COMMENT ON VIEW tenancy.outbox_messages IS 'event_outbox under the column names of contract H''s own outbox.';
COMMENT ON COLUMN tenancy.outbox_messages.id IS 'event_outbox.id.';
COMMENT ON COLUMN tenancy.outbox_messages.aggregate_type IS 'event_outbox.aggregatetype.';
COMMENT ON COLUMN tenancy.outbox_messages.aggregate_id IS 'event_outbox.aggregateid.';
COMMENT ON COLUMN tenancy.outbox_messages.event_type IS 'event_outbox.type.';
COMMENT ON COLUMN tenancy.outbox_messages.event_data IS 'event_outbox.payload.';
COMMENT ON COLUMN tenancy.outbox_messages.event_key IS 'event_outbox.aggregateid.';
COMMENT ON COLUMN tenancy.outbox_messages.topic IS 'event_outbox.type.';
COMMENT ON COLUMN tenancy.outbox_messages.created_at IS 'event_outbox.created_at.';
COMMENT ON COLUMN tenancy.outbox_messages.published_at IS 'created_at where no consumer has it pending, else NULL; the moment of an acknowledgement is not kept.';
COMMENT ON COLUMN tenancy.outbox_messages.retry_count IS 'The highest number of tries of a consumer that has it pending.';
COMMENT ON COLUMN tenancy.outbox_messages.last_error IS 'Says where a consumer gave it up.';
COMMENT ON COLUMN tenancy.outbox_messages.tenant_id IS 'The tenant the event belongs to.';
