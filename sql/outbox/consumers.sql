-- Who reads the outbox.

CREATE FUNCTION tenancy.set_event_consumer(
    consumer text,
    topics text[] DEFAULT NULL,
    visibility_timeout interval DEFAULT NULL,
    max_attempts integer DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known record;
    wanted text[];
    is_new boolean;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(set_event_consumer.consumer, 'consumer');
    IF set_event_consumer.topics = '{}' OR array_ndims(set_event_consumer.topics) > 1
       OR EXISTS (SELECT FROM unnest(set_event_consumer.topics) AS topic WHERE topic IS NULL OR topic !~ '\S') THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'topics must be a list of event types, at least one',
            'Pass NULL to leave the topics as they are, ARRAY[''*''] for all.', jsonb_build_object('parameter', 'topics'));
    END IF;
    IF set_event_consumer.visibility_timeout <= interval '0' OR set_event_consumer.visibility_timeout > interval '366 days'
       OR set_event_consumer.max_attempts < 1 THEN
        PERFORM tenancy._raise('22023', 'invalid_argument',
            'visibility_timeout must be longer than 0 and at most 366 days, max_attempts greater than 0',
            'Pass NULL to leave them as they are.');
    END IF;
    SELECT c.topics INTO known FROM tenancy.event_consumers AS c WHERE c.consumer = set_event_consumer.consumer;
    is_new := NOT FOUND;
    wanted := CASE
        WHEN set_event_consumer.topics IS NULL THEN CASE WHEN is_new THEN NULL ELSE known.topics END
        ELSE tenancy._topics(set_event_consumer.topics)
    END;
    IF is_new OR wanted IS DISTINCT FROM known.topics THEN
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            PERFORM tenancy._raise('0A000', 'isolation_level', 'A consumer is made or changed at READ COMMITTED only',
                'Call tenancy.set_event_consumer() in a transaction of its own first.');
        END IF;
        -- Waits for every transaction that has published and not committed: whoever comes later sees the new row
        -- (_consumers_of reads as of now), whoever came earlier is found by the statements below. No event is missed.
        LOCK TABLE tenancy.event_outbox IN SHARE ROW EXCLUSIVE MODE;
        SELECT c.topics INTO known FROM tenancy.event_consumers AS c WHERE c.consumer = set_event_consumer.consumer;
        is_new := NOT FOUND;
    END IF;
    IF is_new THEN
        INSERT INTO tenancy.event_consumers (consumer, topics, visibility_timeout, max_attempts)
        VALUES (set_event_consumer.consumer, wanted, coalesce(set_event_consumer.visibility_timeout, '30 seconds'),
                coalesce(set_event_consumer.max_attempts, 10));
    ELSE
        UPDATE tenancy.event_consumers AS c
           SET topics = wanted,
               visibility_timeout = coalesce(set_event_consumer.visibility_timeout, c.visibility_timeout),
               max_attempts = coalesce(set_event_consumer.max_attempts, c.max_attempts),
               updated_at = now()
         WHERE c.consumer = set_event_consumer.consumer;
    END IF;
    IF is_new OR wanted IS DISTINCT FROM known.topics THEN
        DELETE FROM tenancy.event_deliveries AS d
         USING tenancy.event_outbox AS o
         WHERE d.consumer = set_event_consumer.consumer
           AND o.tenant_id = d.tenant_id AND o.id = d.event_id
           AND wanted IS NOT NULL AND o.type <> ALL (wanted);
        INSERT INTO tenancy.event_deliveries (tenant_id, consumer, aggregatetype, aggregateid, sequence, event_id, slot)
        SELECT o.tenant_id, set_event_consumer.consumer, o.aggregatetype, o.aggregateid, o.sequence, o.id,
               tenancy._stream_slot(o.tenant_id, o.aggregatetype, o.aggregateid)
          FROM tenancy.event_outbox AS o
         WHERE (wanted IS NULL OR o.type = ANY (wanted))
           AND (is_new OR (known.topics IS NOT NULL AND o.type <> ALL (known.topics)))
        ON CONFLICT ON CONSTRAINT event_deliveries_pkey DO NOTHING;
    END IF;
    RETURN is_new;
END
$$;

COMMENT ON FUNCTION tenancy.set_event_consumer(text, text[], interval, integer) IS
'Makes a consumer of the outbox, or changes it, and returns whether it is new. topics: the event types it is given, ARRAY[''*''] for all. visibility_timeout: how long an event that was handed out is hidden (30 seconds). max_attempts: after how many tries it becomes a dead letter (10). NULL leaves a value; a new consumer is given everything the outbox still holds of its topics. Waits for transactions that have published. Errors: 0A000 isolation_level, 22023, 55000.';

CREATE FUNCTION tenancy._topics(topics text[]) RETURNS text[]
LANGUAGE plpgsql
IMMUTABLE
AS $$
BEGIN
    IF '*' = ANY (_topics.topics) THEN
        RETURN NULL;
    END IF;
    RETURN ARRAY(SELECT DISTINCT topic FROM unnest(_topics.topics) AS topic ORDER BY topic);
END
$$;

COMMENT ON FUNCTION tenancy._topics(text[]) IS 'Topics as event_consumers keeps them: sorted, each once; NULL for all (a * among them).';

CREATE FUNCTION tenancy.drop_event_consumer(consumer text) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(drop_event_consumer.consumer, 'consumer');
    LOCK TABLE tenancy.event_outbox IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM tenancy.event_consumers AS c WHERE c.consumer = drop_event_consumer.consumer;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM tenancy.event_deliveries AS d WHERE d.consumer = drop_event_consumer.consumer;
    DELETE FROM tenancy.event_dead_letters AS l WHERE l.consumer = drop_event_consumer.consumer;
    RETURN true;
END
$$;

COMMENT ON FUNCTION tenancy.drop_event_consumer(text) IS
'Removes a consumer with all it has pending; events wait for nobody then. Returns whether there was one. Errors: 22023, 55000.';
