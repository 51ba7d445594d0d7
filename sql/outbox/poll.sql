-- Reading the outbox: events are leased to a caller, in order within an aggregate, until they are acknowledged.

CREATE FUNCTION tenancy.poll_events(
    consumer text,
    max_events integer DEFAULT 100,
    topics text[] DEFAULT NULL,
    visibility_timeout interval DEFAULT NULL
) RETURNS SETOF tenancy.event
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    settings record;
    remaining integer := poll_events.max_events;
    start integer := floor(random() * 4294967296 - 2147483648)::bigint::integer;
    head record;
    given integer;
BEGIN
    PERFORM tenancy._require_installed();
    IF poll_events.max_events IS NULL OR poll_events.max_events NOT BETWEEN 1 AND 10000
       OR poll_events.visibility_timeout <= interval '0' OR poll_events.visibility_timeout > interval '366 days' THEN
        PERFORM tenancy._raise('22023', 'invalid_argument',
            'max_events must be between 1 and 10000, and visibility_timeout longer than 0 and at most 366 days',
            'Poll again for more.', jsonb_build_object('parameter', 'max_events'));
    END IF;
    SELECT c.topics, c.visibility_timeout, c.max_attempts INTO settings
      FROM tenancy.event_consumers AS c WHERE c.consumer = poll_events.consumer;
    IF NOT FOUND OR (poll_events.topics IS NOT NULL
                     AND settings.topics IS DISTINCT FROM tenancy._topics(poll_events.topics)) THEN
        PERFORM tenancy.set_event_consumer(poll_events.consumer, poll_events.topics);
        SELECT c.topics, c.visibility_timeout, c.max_attempts INTO settings
          FROM tenancy.event_consumers AS c WHERE c.consumer = poll_events.consumer;
    END IF;

    -- Two rounds through the aggregates: from a random one to the end, then from the first on.
    FOR round IN 1..2 LOOP
        EXIT WHEN remaining = 0;
        FOR head IN
            SELECT h.* FROM tenancy._lease_heads(poll_events.consumer,
                                                 CASE round WHEN 1 THEN start ELSE -2147483648 END,
                                                 CASE round WHEN 1 THEN 2147483648 ELSE start END, remaining) AS h
        LOOP
            EXIT WHEN remaining = 0;
            IF head.attempts >= settings.max_attempts THEN
                PERFORM tenancy._bury_event(head.tenant_id, poll_events.consumer, head.aggregatetype, head.aggregateid,
                                            head.sequence);
                CONTINUE;
            END IF;
            RETURN QUERY
                SELECT l.* FROM tenancy._lease_stream(head.tenant_id, poll_events.consumer, head.aggregatetype, head.aggregateid,
                    head.sequence, remaining, coalesce(poll_events.visibility_timeout, settings.visibility_timeout)) AS l;
            GET DIAGNOSTICS given = ROW_COUNT;
            remaining := remaining - given;
        END LOOP;
    END LOOP;
END
$$;

COMMENT ON FUNCTION tenancy.poll_events(text, integer, text[], interval) IS
'Hands out up to max_events events a consumer has not acknowledged, and hides them for visibility_timeout (the consumer''s, 30 seconds). Events of one aggregate come in order, and none of them to another caller meanwhile; a later one only after the earlier ones are acknowledged or in the same answer. An event that comes as the first of its aggregate more than max_attempts times becomes a dead letter. topics: changes the consumer''s, as set_event_consumer. Listen on channel tenancy_events to be woken (payload: the consumer). The lease is the caller''s transaction''s: commit before working, or work and acknowledge in the same one. Errors: 22023, 0A000, 55000.';

CREATE FUNCTION tenancy._lease_heads(consumer text, first_slot bigint, end_slot bigint, max_streams integer)
RETURNS TABLE (tenant_id text, aggregatetype varchar, aggregateid varchar, sequence bigint, attempts integer)
LANGUAGE plpgsql
AS $$
BEGIN
    -- Jumps from aggregate to aggregate through event_deliveries_order_idx. A head that another caller holds is skipped,
    -- and with it its whole aggregate: that is what keeps the order.
    RETURN QUERY
        WITH RECURSIVE heads AS (
            (SELECT d.slot, d.tenant_id, d.aggregatetype, d.aggregateid, d.sequence
               FROM tenancy.event_deliveries AS d
              WHERE d.consumer = _lease_heads.consumer AND d.slot >= _lease_heads.first_slot AND d.slot < _lease_heads.end_slot
              ORDER BY d.slot, d.tenant_id, d.aggregatetype, d.aggregateid, d.sequence
              LIMIT 1)
            UNION ALL
            SELECT n.slot, n.tenant_id, n.aggregatetype, n.aggregateid, n.sequence
              FROM heads AS h
             CROSS JOIN LATERAL (
                SELECT d.slot, d.tenant_id, d.aggregatetype, d.aggregateid, d.sequence
                  FROM tenancy.event_deliveries AS d
                 WHERE d.consumer = _lease_heads.consumer AND d.slot < _lease_heads.end_slot
                   AND (d.slot, d.tenant_id, d.aggregatetype, d.aggregateid)
                     > (h.slot, h.tenant_id, h.aggregatetype, h.aggregateid)
                 ORDER BY d.slot, d.tenant_id, d.aggregatetype, d.aggregateid, d.sequence
                 LIMIT 1) AS n
        )
        SELECT d.tenant_id, d.aggregatetype, d.aggregateid, d.sequence, d.attempts
          FROM heads AS h
          JOIN tenancy.event_deliveries AS d
            ON d.tenant_id = h.tenant_id AND d.consumer = _lease_heads.consumer
           AND d.aggregatetype = h.aggregatetype AND d.aggregateid = h.aggregateid AND d.sequence = h.sequence
         WHERE d.visible_at <= clock_timestamp()
         LIMIT _lease_heads.max_streams
           FOR UPDATE OF d SKIP LOCKED;
END
$$;

COMMENT ON FUNCTION tenancy._lease_heads(text, bigint, bigint, integer) IS
'Locks the first pending event of each aggregate whose slot lies in the range, unless it is hidden or another caller holds it.';

CREATE FUNCTION tenancy._lease_stream(
    tenant_id text,
    consumer text,
    aggregate_type text,
    aggregate_id text,
    first_sequence bigint,
    max_events integer,
    visibility_timeout interval
) RETURNS SETOF tenancy.event
LANGUAGE plpgsql
AS $$
DECLARE
    last_sequence bigint;
BEGIN
    SELECT max(f.sequence) INTO last_sequence
      FROM (SELECT d.sequence FROM tenancy.event_deliveries AS d
             WHERE d.tenant_id = _lease_stream.tenant_id AND d.consumer = _lease_stream.consumer
               AND d.aggregatetype = _lease_stream.aggregate_type AND d.aggregateid = _lease_stream.aggregate_id
               AND d.sequence >= _lease_stream.first_sequence
             ORDER BY d.sequence LIMIT _lease_stream.max_events) AS f;
    -- Only the first one's tries count: what follows it may never have been looked at.
    UPDATE tenancy.event_deliveries AS d
       SET visible_at = clock_timestamp() + _lease_stream.visibility_timeout,
           attempts = d.attempts + CASE WHEN d.sequence = _lease_stream.first_sequence THEN 1 ELSE 0 END
     WHERE d.tenant_id = _lease_stream.tenant_id AND d.consumer = _lease_stream.consumer
       AND d.aggregatetype = _lease_stream.aggregate_type AND d.aggregateid = _lease_stream.aggregate_id
       AND d.sequence BETWEEN _lease_stream.first_sequence AND last_sequence;
    RETURN QUERY
        SELECT o.id, o.tenant_id, o.aggregatetype::text, o.aggregateid::text, o.sequence, o.type::text, o.payload, d.attempts,
               o.created_at
          FROM tenancy.event_deliveries AS d
          JOIN tenancy.event_outbox AS o ON o.tenant_id = d.tenant_id AND o.id = d.event_id
         WHERE d.tenant_id = _lease_stream.tenant_id AND d.consumer = _lease_stream.consumer
           AND d.aggregatetype = _lease_stream.aggregate_type AND d.aggregateid = _lease_stream.aggregate_id
           AND d.sequence BETWEEN _lease_stream.first_sequence AND last_sequence
         ORDER BY d.sequence;
END
$$;

COMMENT ON FUNCTION tenancy._lease_stream(text, text, text, text, bigint, integer, interval) IS
'Hides the pending events of one aggregate from its locked first one on, and returns them in order.';

CREATE FUNCTION tenancy._bury_event(tenant_id text, consumer text, aggregate_type text, aggregate_id text, sequence bigint)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO tenancy.event_dead_letters (tenant_id, consumer, event_id, aggregatetype, aggregateid, sequence, attempts)
    SELECT d.tenant_id, d.consumer, d.event_id, d.aggregatetype, d.aggregateid, d.sequence, d.attempts
      FROM tenancy.event_deliveries AS d
     WHERE d.tenant_id = _bury_event.tenant_id AND d.consumer = _bury_event.consumer
       AND d.aggregatetype = _bury_event.aggregate_type AND d.aggregateid = _bury_event.aggregate_id
       AND d.sequence = _bury_event.sequence
    ON CONFLICT ON CONSTRAINT event_dead_letters_pkey DO NOTHING;
    DELETE FROM tenancy.event_deliveries AS d
     WHERE d.tenant_id = _bury_event.tenant_id AND d.consumer = _bury_event.consumer
       AND d.aggregatetype = _bury_event.aggregate_type AND d.aggregateid = _bury_event.aggregate_id
       AND d.sequence = _bury_event.sequence;
END
$$;

COMMENT ON FUNCTION tenancy._bury_event(text, text, text, text, bigint) IS 'Makes a pending event a dead letter.';

CREATE FUNCTION tenancy.ack_events(consumer text, event_ids uuid[]) RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    acknowledged integer;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(ack_events.consumer, 'consumer');
    PERFORM tenancy._require_value(ack_events.event_ids, 'event_ids');
    -- In one order, as polling takes them: two callers with the same events do not wait for each other in a circle.
    PERFORM FROM tenancy.event_deliveries AS d
      WHERE d.consumer = ack_events.consumer AND d.event_id = ANY (ack_events.event_ids)
      ORDER BY d.tenant_id, d.aggregatetype, d.aggregateid, d.sequence
        FOR UPDATE;
    -- What was never handed out cannot be acknowledged.
    DELETE FROM tenancy.event_deliveries AS d
     WHERE d.consumer = ack_events.consumer AND d.event_id = ANY (ack_events.event_ids)
       AND d.visible_at > '-infinity';
    GET DIAGNOSTICS acknowledged = ROW_COUNT;
    RETURN acknowledged;
END
$$;

COMMENT ON FUNCTION tenancy.ack_events(text, uuid[]) IS
'Says that a consumer is done with events that poll_events handed out: they do not come again. Returns how many were pending. Errors: 22023, 55000.';

CREATE FUNCTION tenancy.requeue_event(consumer text, event_id uuid) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(requeue_event.consumer, 'consumer');
    PERFORM tenancy._require_value(requeue_event.event_id, 'event_id');
    INSERT INTO tenancy.event_deliveries (tenant_id, consumer, aggregatetype, aggregateid, sequence, event_id, slot)
    SELECT l.tenant_id, l.consumer, l.aggregatetype, l.aggregateid, l.sequence, l.event_id,
           tenancy._stream_slot(l.tenant_id, l.aggregatetype, l.aggregateid)
      FROM tenancy.event_dead_letters AS l
     WHERE l.consumer = requeue_event.consumer AND l.event_id = requeue_event.event_id
    ON CONFLICT ON CONSTRAINT event_deliveries_pkey DO NOTHING;
    DELETE FROM tenancy.event_dead_letters AS l
     WHERE l.consumer = requeue_event.consumer AND l.event_id = requeue_event.event_id;
    IF FOUND THEN
        PERFORM pg_notify('tenancy_events', requeue_event.consumer);
        RETURN true;
    END IF;
    RETURN false;
END
$$;

COMMENT ON FUNCTION tenancy.requeue_event(text, uuid) IS
'Hands a dead letter out again, as the first of its aggregate, with its tries counted anew. Returns whether there was one. Errors: 22023, 55000.';
