-- The inbox: every event counts once, however often it is delivered.

CREATE FUNCTION tenancy.consume_event(envelope jsonb) RETURNS TABLE (status text, event_id uuid, result jsonb)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item record;
    taken record;
    story jsonb;
    stories jsonb[] := '{}';
    answers jsonb[] := '{}';
BEGIN
    PERFORM tenancy._require_installed();
    IF tenancy.user_id() IS NOT NULL OR tenancy._identity_expired() THEN
        PERFORM tenancy._raise('PT403', 'identity_in_force', 'Events are consumed without an identity: they carry their own',
            'Call tenancy.consume_event() in a transaction that has not authenticated.');
    END IF;
    IF jsonb_typeof(consume_event.envelope) = 'array' AND jsonb_array_length(consume_event.envelope) > 10000 THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'At most 10000 events are taken in one call', 'Pass them in several calls.',
            jsonb_build_object('parameter', 'envelope'));
    END IF;
    -- Whoever may have to pay is locked beforehand, in the order in which batches lock: no two calls wait in a circle. A
    -- single consumption does that itself, and then mostly locks its organization alone.
    IF jsonb_typeof(consume_event.envelope) = 'array' AND jsonb_array_length(consume_event.envelope) > 1 THEN
        PERFORM tenancy._lock_pools(tenancy._payers_of(consume_event.envelope));
    END IF;
    -- Not in the order of the array: two calls with the same events do not wait for each other in the inbox.
    FOR item IN
        SELECT e.number, e.document, r.*
          FROM jsonb_array_elements(CASE jsonb_typeof(consume_event.envelope) WHEN 'array' THEN consume_event.envelope
                                         ELSE jsonb_build_array(consume_event.envelope) END)
               WITH ORDINALITY AS e (document, number),
               LATERAL tenancy._read_event(e.document::text) AS r
         ORDER BY r.envelope #>> '{data,org_id}' COLLATE "C", r.envelope #>> '{data,user_id}' COLLATE "C", r.event_id, e.number
    LOOP
        SELECT c.status, c.result, c.stories INTO taken
          FROM tenancy._take_event(item.document, item.problem, item.message, item.topic, item.event_id, item.event_type,
                                   item.event_timestamp::timestamptz, item.correlation_id, item.body_sha256, item.envelope) AS c;
        answers[item.number] := jsonb_build_object('status', taken.status, 'event_id', item.event_id, 'result', taken.result);
        stories := stories || taken.stories;
    END LOOP;
    -- After all charges, in one order: publishing locks the aggregates.
    FOR story IN
        SELECT s.story FROM unnest(stories) WITH ORDINALITY AS s (story, number)
         ORDER BY s.story ->> 'aggregate_type' COLLATE "C", s.story ->> 'aggregate_id' COLLATE "C", s.number
    LOOP
        PERFORM tenancy._publish(story ->> 'tenant_id', story ->> 'topic', story ->> 'aggregate_type', story ->> 'aggregate_id',
            'entitlements-service', story -> 'data', story -> 'metadata', (story ->> 'correlation_id')::uuid,
            tenancy._derived_event_id(story ->> 'topic', (story -> 'data')::text));
    END LOOP;
    RETURN QUERY
        SELECT a.answer ->> 'status', (a.answer ->> 'event_id')::uuid, a.answer -> 'result'
          FROM unnest(answers) WITH ORDINALITY AS a (answer, number)
         ORDER BY a.number;
END
$$;

COMMENT ON FUNCTION tenancy.consume_event(jsonb) IS
'Takes an event envelope of contract H, or an array of them, and answers one row for each, in order: status processed, duplicate (taken before; result is the first answer) or rejected (result.reason). Each event id counts once within its tenant. metadata.namespace is the namespace of its user and organization, where they are not in the empty one. ResourceConsumptionV1 is charged by consume_credits, org first, and credit.balance.changed and usage.recorded are published; BatchEssaysRegistered registers the batch, unless its id is that of another tenant''s (reason batch_id_taken). A business denial is processed, with result.success false. A bad envelope is rejected and does not raise; nor does one that is not younger than what trim_inbox() removed (reason outside_dedup_window). Each batch keeps a lock until the transaction ends. Errors: PT403 identity_in_force, 22023 (more than 10000), 53200 (more batches in one transaction than max_locks_per_transaction leaves room for), 55000.';

CREATE FUNCTION tenancy._payers_of(envelopes jsonb) RETURNS uuid[]
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN ARRAY(
        WITH named AS (
            SELECT DISTINCT coalesce(e.document #>> '{metadata,namespace}', '') AS namespace,
                   e.document #>> '{data,org_id}' AS org_id, e.document #>> '{data,user_id}' AS user_id
              FROM jsonb_array_elements(_payers_of.envelopes) AS e (document)
             WHERE e.document #> '{data,resource_type}' IS NOT NULL
        )
        SELECT o.id FROM named AS n JOIN tenancy.organizations AS o ON o.namespace = n.namespace AND o.external_id = n.org_id
        UNION
        SELECT u.id FROM named AS n JOIN tenancy.users AS u ON u.namespace = n.namespace AND u.external_id = n.user_id);
END
$$;

COMMENT ON FUNCTION tenancy._payers_of(jsonb) IS
'Organizations and users that the consumptions in an array of envelopes name, by their ids, which are those of their pools.';

CREATE FUNCTION tenancy._take_event(
    document jsonb,
    problem text,
    message text,
    topic text,
    event_id uuid,
    event_type text,
    event_timestamp timestamptz,
    correlation_id uuid,
    body_sha256 text,
    envelope jsonb,
    OUT status text,
    OUT result jsonb,
    OUT stories jsonb[]
)
LANGUAGE plpgsql
AS $$
DECLARE
    data jsonb := _take_event.envelope -> 'data';
    org text := tenancy._event_org(_take_event.topic, _take_event.envelope);
    namespace text := coalesce(_take_event.envelope #>> '{metadata,namespace}', '');
    tenant text;
    known record;
    forgotten timestamptz;
    happened timestamptz := coalesce(_take_event.event_timestamp, '-infinity');
    correlation uuid := coalesce(_take_event.correlation_id, tenancy.uuid_v7());
    reason text := _take_event.problem;
    explanation text := _take_event.message;
    raised text;
BEGIN
    _take_event.stories := '{}';
    IF reason IS NULL THEN
        IF _take_event.topic IS NULL OR _take_event.topic LIKE 'huleedu.entitlements.%'
           OR _take_event.topic = 'huleedu.pipeline.denied.v1' THEN
            reason := 'unsupported_event_type';
            explanation := 'nothing here consumes events of this type';
        ELSIF coalesce(jsonb_typeof(_take_event.envelope #> '{metadata,namespace}'), 'null') NOT IN ('string', 'null') THEN
            reason := 'invalid_argument';
            explanation := 'metadata.namespace must be a text';
        ELSIF coalesce(data ->> 'user_id', '') IN ('', tenancy._placeholder()) THEN
            reason := 'no_identity';
            explanation := 'data.user_id names nobody: there is nobody to attribute the event to';
        ELSE
            BEGIN
                PERFORM tenancy._require_namespace(namespace);
                tenant := tenancy._tenant_of(namespace, data ->> 'user_id', org);
            EXCEPTION WHEN OTHERS THEN
                IF SQLSTATE NOT LIKE 'PT4%' AND SQLSTATE NOT LIKE '22%' THEN
                    RAISE;
                END IF;
                GET STACKED DIAGNOSTICS raised = PG_EXCEPTION_DETAIL;
                reason := CASE WHEN raised LIKE '{%' THEN raised::jsonb ->> 'reason' ELSE 'invalid_data' END;
                explanation := SQLERRM;
            END;
        END IF;
    END IF;
    IF reason IS NOT NULL THEN
        SELECT 'rejected', r.result INTO _take_event.status, _take_event.result
          FROM tenancy._reject_event(coalesce(tenant, ''), _take_event.document, reason, explanation) AS r;
        RETURN;
    END IF;

    -- A concurrent delivery of the same event waits here for the first one's end.
    INSERT INTO tenancy.event_inbox (tenant_id, event_id, body_sha256, event_type, status, user_id, org_id, correlation_id,
                                     event_timestamp)
    VALUES (tenant, _take_event.event_id, _take_event.body_sha256, left(_take_event.event_type, 255), 'received',
            data ->> 'user_id', org, correlation, happened)
    ON CONFLICT ON CONSTRAINT event_inbox_pkey DO NOTHING;
    IF NOT FOUND THEN
        SELECT i.body_sha256, i.status, i.result INTO known FROM tenancy.event_inbox AS i
         WHERE i.tenant_id = tenant AND i.event_id = _take_event.event_id;
        IF NOT FOUND THEN
            PERFORM tenancy._raise('40001', 'taken_meanwhile', 'Another transaction took the event meanwhile', 'Run it again.');
        END IF;
        IF known.body_sha256 <> _take_event.body_sha256 THEN
            SELECT 'rejected', r.result INTO _take_event.status, _take_event.result
              FROM tenancy._reject_event(tenant, _take_event.document, 'event_id_reused',
                  'another event with this id was taken before') AS r;
            RETURN;
        END IF;
        _take_event.status := CASE known.status WHEN 'rejected' THEN 'rejected' ELSE 'duplicate' END;
        _take_event.result := known.result;
        RETURN;
    END IF;
    -- Read after the insert, which waits for a trimming that has just removed this event.
    SELECT h.forgotten_through INTO forgotten FROM tenancy.event_inbox_horizons AS h WHERE h.tenant_id = tenant;
    IF happened <= forgotten THEN
        _take_event.status := 'rejected';
        _take_event.result := jsonb_build_object('reason', 'outside_dedup_window',
            'message', 'the event is older than the inbox remembers: it may have been taken before');
    ELSE
        _take_event.status := 'processed';
        BEGIN
            SELECT p.result, p.stories INTO _take_event.result, _take_event.stories
              FROM tenancy._process_event(tenant, namespace, _take_event.topic, org, data, correlation) AS p;
        EXCEPTION WHEN OTHERS THEN
            -- A denial is an answer; anything else (a deadlock, a full disk) is not the event's fault.
            IF SQLSTATE NOT LIKE 'PT4%' AND SQLSTATE NOT LIKE '22%' THEN
                RAISE;
            END IF;
            GET STACKED DIAGNOSTICS raised = PG_EXCEPTION_DETAIL;
            _take_event.stories := '{}';
            _take_event.result := jsonb_build_object('success', false, 'sqlstate', SQLSTATE, 'message', SQLERRM, 'reason',
                CASE WHEN raised LIKE '{%' THEN raised::jsonb ->> 'reason' ELSE 'invalid_data' END);
        END;
    END IF;
    UPDATE tenancy.event_inbox AS i
       SET status = _take_event.status, result = _take_event.result
     WHERE i.tenant_id = tenant AND i.event_id = _take_event.event_id;
END
$$;

COMMENT ON FUNCTION tenancy._take_event(jsonb, text, text, text, uuid, text, timestamptz, uuid, text, jsonb) IS
'Takes one event that was read: into the inbox, once, and processed there. stories: what is to be published about it.';

CREATE FUNCTION tenancy._event_org(topic text, envelope jsonb) RETURNS text
LANGUAGE plpgsql
IMMUTABLE
AS $$
DECLARE
    named jsonb := CASE _event_org.topic WHEN 'huleedu.commands.batch.pipeline.v1'
                        THEN _event_org.envelope #> '{metadata,org_id}' ELSE _event_org.envelope #> '{data,org_id}' END;
BEGIN
    RETURN CASE jsonb_typeof(named) WHEN 'string' THEN nullif(named #>> '{}', '') END;
END
$$;

COMMENT ON FUNCTION tenancy._event_org(text, jsonb) IS
'The organization an event is attributed to: its data''s, of a pipeline request the envelope''s metadata''s; an empty one is none.';

CREATE FUNCTION tenancy._reject_event(tenant_id text, document jsonb, reason text, message text, OUT result jsonb)
LANGUAGE plpgsql
AS $$
DECLARE
    body text := encode(sha256(convert_to(coalesce(_reject_event.document, 'null')::text, 'UTF8')), 'hex');
BEGIN
    _reject_event.result := jsonb_build_object('reason', _reject_event.reason, 'message', _reject_event.message);
    -- Under an id of its own: a mended event that comes with the same id later is another matter.
    INSERT INTO tenancy.event_inbox (tenant_id, event_id, body_sha256, event_type, status, result, event_timestamp)
    VALUES (_reject_event.tenant_id, tenancy._correlation_uuid('rejected:' || body), body,
            left(_reject_event.document ->> 'event_type', 255), 'rejected', _reject_event.result, '-infinity')
    ON CONFLICT ON CONSTRAINT event_inbox_pkey DO NOTHING;
END
$$;

COMMENT ON FUNCTION tenancy._reject_event(text, jsonb, text, text) IS 'Records an event that is not taken, and says why.';

CREATE FUNCTION tenancy._process_event(
    tenant_id text,
    namespace text,
    topic text,
    org_id text,
    data jsonb,
    correlation_id uuid,
    OUT result jsonb,
    OUT stories jsonb[]
)
LANGUAGE plpgsql
AS $$
DECLARE
    data jsonb := _process_event.data;
    batch record;
    registered boolean;
BEGIN
    _process_event.stories := '{}';
    CASE _process_event.topic
        WHEN 'huleedu.resource.consumption.v1' THEN
            SELECT c.result, c.stories INTO _process_event.result, _process_event.stories
              FROM tenancy._charge_consumption(_process_event.tenant_id, _process_event.namespace, data,
                                               _process_event.correlation_id) AS c;
        WHEN 'huleedu.batch.essays.registered.v1' THEN
            IF data -> 'essay_ids' = '[]' THEN
                PERFORM tenancy._raise('22023', 'no_essays', 'essay_ids is empty', 'Name the essays of the batch.');
            END IF;
            IF jsonb_array_length(data -> 'essay_ids') > 10000 THEN
                PERFORM tenancy._raise('22023', 'too_many_essays', 'A batch has at most 10000 essays', 'Register several batches.');
            END IF;
            -- Whoever published it may have named any id.
            PERFORM tenancy._claim_batch_id(_process_event.tenant_id, (data ->> 'entity_id')::uuid, may_share => false);
            registered := tenancy._insert_batch(_process_event.tenant_id, _process_event.namespace, (data ->> 'entity_id')::uuid,
                data ->> 'user_id', _process_event.org_id,
                -- As a set: an id that is listed twice is one slot.
                ARRAY(SELECT DISTINCT essay FROM jsonb_array_elements_text(data -> 'essay_ids') AS essay ORDER BY essay),
                data, _process_event.correlation_id);
            _process_event.result := jsonb_build_object('success', true, 'batch_id', data -> 'entity_id',
                'status', CASE WHEN registered THEN 'registered' ELSE 'already_registered' END);
        WHEN 'huleedu.els.cj_assessment.requested.v1' THEN
            _process_event.result := jsonb_build_object('success', true, 'batch_id', data -> 'entity_id',
                'comparisons', tenancy.comparison_count(jsonb_array_length(data -> 'essays_for_cj')));
        WHEN 'huleedu.commands.batch.pipeline.v1' THEN
            SELECT b.user_id, b.org_id INTO batch FROM tenancy.batches AS b
             WHERE b.tenant_id = _process_event.tenant_id AND b.batch_id::text = lower(data ->> 'batch_id');
            IF NOT FOUND THEN
                PERFORM tenancy._raise('PT404', 'batch_not_found', 'Batch not found', 'Register the batch first.');
            END IF;
            IF batch.org_id IS DISTINCT FROM _process_event.org_id THEN
                PERFORM tenancy._raise('PT403', 'batch_of_another_organization',
                    'The batch belongs to another organization than who asks', 'Name the batch''s organization in metadata.org_id.');
            END IF;
            _process_event.result := jsonb_build_object('success', true, 'batch_id', data -> 'batch_id',
                'requested_pipeline', data -> 'requested_pipeline');
    END CASE;
END
$$;

COMMENT ON FUNCTION tenancy._process_event(text, text, text, text, jsonb, uuid) IS
'Does what an event asks for. Raises where the business denies it.';

CREATE FUNCTION tenancy._charge_consumption(
    tenant_id text,
    namespace text,
    data jsonb,
    correlation_id uuid,
    OUT result jsonb,
    OUT stories jsonb[]
)
LANGUAGE plpgsql
AS $$
DECLARE
    cost numeric;
    charge record;
    payer_org text := nullif(_charge_consumption.data ->> 'org_id', '');
    whole_day timestamptz := date_trunc('day', now(), 'UTC');
    context jsonb := tenancy._context(_charge_consumption.data ->> 'user_id', payer_org, _charge_consumption.namespace);
BEGIN
    _charge_consumption.stories := '{}';
    SELECT c.success, c.new_balance, c.consumed_from INTO charge
      FROM tenancy._consume_credits(
          namespace => _charge_consumption.namespace,
          user_id => _charge_consumption.data ->> 'user_id',
          org_id => payer_org,
          metric => _charge_consumption.data ->> 'resource_type',
          amount => (_charge_consumption.data ->> 'quantity')::integer,
          batch_id => CASE WHEN _charge_consumption.data ->> 'entity_type' = 'batch' THEN _charge_consumption.data ->> 'entity_id' END,
          correlation_id => _charge_consumption.correlation_id::text) AS c;
    _charge_consumption.result := jsonb_build_object('success', charge.success, 'new_balance', charge.new_balance,
        'consumed_from', charge.consumed_from);
    IF NOT charge.success THEN
        RETURN;
    END IF;
    IF charge.consumed_from IN ('org', 'user') THEN
        cost := tenancy._consumption_cost(_charge_consumption.data ->> 'resource_type',
                                          (_charge_consumption.data ->> 'quantity')::integer);
        _charge_consumption.stories := _charge_consumption.stories || jsonb_build_object(
            'tenant_id', _charge_consumption.tenant_id,
            'topic', 'huleedu.entitlements.credit.balance.changed.v1',
            'aggregate_type', 'credit_balance_' || charge.consumed_from,
            'aggregate_id', CASE charge.consumed_from WHEN 'org' THEN payer_org ELSE _charge_consumption.data ->> 'user_id' END,
            'correlation_id', _charge_consumption.correlation_id,
            'metadata', context,
            'data', jsonb_build_object(
                'subject', jsonb_build_object('type', charge.consumed_from, 'id',
                    CASE charge.consumed_from WHEN 'org' THEN payer_org ELSE _charge_consumption.data ->> 'user_id' END),
                'delta', trim_scale(-cost),
                'new_balance', trim_scale(charge.new_balance),
                'reason', 'credit_operation',
                'correlation_id', _charge_consumption.correlation_id));
    END IF;
    -- Usage is the user's, whoever pays (contract H).
    _charge_consumption.stories := _charge_consumption.stories || jsonb_build_object(
        'tenant_id', _charge_consumption.tenant_id,
        'topic', 'huleedu.entitlements.usage.recorded.v1',
        'aggregate_type', 'usage_user',
        'aggregate_id', _charge_consumption.data ->> 'user_id',
        'correlation_id', _charge_consumption.correlation_id,
        'metadata', context,
        'data', jsonb_build_object(
            'subject', jsonb_build_object('type', 'user', 'id', _charge_consumption.data ->> 'user_id'),
            'metric', _charge_consumption.data ->> 'resource_type',
            'amount', (_charge_consumption.data ->> 'quantity')::integer,
            'period_start', tenancy._utc_text(whole_day),
            'period_end', tenancy._utc_text(whole_day + interval '1 day'),
            'correlation_id', _charge_consumption.correlation_id));
END
$$;

COMMENT ON FUNCTION tenancy._charge_consumption(text, text, jsonb, uuid) IS
'Charges a ResourceConsumptionV1; its stories are credit.balance.changed (nothing where it was free) and usage.recorded. The period of usage is the day, UTC.';

CREATE FUNCTION tenancy._consumption_cost(metric text, quantity integer) RETURNS numeric
LANGUAGE plpgsql
STABLE
AS $$
BEGIN
    RETURN coalesce((SELECT c.cost FROM tenancy.credit_costs AS c WHERE c.metric = _consumption_cost.metric), 0)
           * _consumption_cost.quantity;
END
$$;

COMMENT ON FUNCTION tenancy._consumption_cost(text, integer) IS
'What a quantity of a metric costs, in credits; 0 for an unknown metric (contract H).';

CREATE FUNCTION tenancy.trim_inbox(dedup_window interval DEFAULT '7 days', max_rows integer DEFAULT 10000) RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenants text[];
    ids uuid[];
    ages timestamptz[];
BEGIN
    PERFORM tenancy._require_installed();
    IF trim_inbox.dedup_window IS NULL OR trim_inbox.dedup_window < interval '0' OR trim_inbox.max_rows IS NULL
       OR trim_inbox.max_rows NOT BETWEEN 1 AND 1000000 THEN
        PERFORM tenancy._raise('22023', 'invalid_argument',
            'dedup_window must not be negative, max_rows between 1 and 1000000', 'The defaults are 7 days and 10000.');
    END IF;
    SELECT array_agg(v.tenant_id), array_agg(v.event_id), array_agg(v.age) INTO tenants, ids, ages
      FROM (SELECT i.tenant_id, i.event_id, greatest(i.received_at, i.event_timestamp) AS age
              FROM tenancy.event_inbox AS i
             WHERE greatest(i.received_at, i.event_timestamp) < clock_timestamp() - least(trim_inbox.dedup_window, interval '4000 years')
             ORDER BY greatest(i.received_at, i.event_timestamp)
             LIMIT trim_inbox.max_rows
               FOR UPDATE SKIP LOCKED) AS v;
    IF ids IS NULL THEN
        RETURN 0;
    END IF;
    -- What is not younger than the youngest event removed can no longer be told from a redelivery.
    INSERT INTO tenancy.event_inbox_horizons AS h (tenant_id, forgotten_through)
    SELECT v.tenant_id, max(v.age) FROM unnest(tenants, ages) AS v (tenant_id, age)
     WHERE v.tenant_id <> ''
     GROUP BY v.tenant_id
     ORDER BY v.tenant_id
    ON CONFLICT ON CONSTRAINT event_inbox_horizons_pkey DO UPDATE
       SET forgotten_through = greatest(h.forgotten_through, EXCLUDED.forgotten_through), updated_at = now();
    DELETE FROM tenancy.event_inbox AS i
     USING unnest(tenants, ids) AS v (tenant_id, event_id)
     WHERE i.tenant_id = v.tenant_id AND i.event_id = v.event_id;
    RETURN cardinality(ids);
END
$$;

COMMENT ON FUNCTION tenancy.trim_inbox(interval, integer) IS
'Removes up to max_rows events from the inbox that are older than dedup_window by their own time and by their receipt, and returns how many. Redeliveries of them are rejected from then on (outside_dedup_window), never charged again; so is an event without event_timestamp of a tenant whose inbox was trimmed. Errors: 22023, 55000.';
