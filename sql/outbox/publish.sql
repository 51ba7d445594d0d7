-- Publishing: into event_outbox, in the transaction of what is told.

CREATE FUNCTION tenancy._may_act_for_others() RETURNS boolean
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- The caller below every SECURITY DEFINER function. Who may call act_as may name anybody.
    RETURN has_function_privilege(
        CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END,
        'tenancy.act_as(text,text,text,text,text)'::regprocedure, 'EXECUTE');
END
$$;

COMMENT ON FUNCTION tenancy._may_act_for_others() IS
'Whether the calling role has service access: it may name the user and organization something is attributed to.';

CREATE FUNCTION tenancy._attribute(
    named_user text,
    named_org text,
    named_namespace text DEFAULT NULL,
    OUT user_id text,
    OUT org_id text,
    OUT tenant_id text,
    OUT namespace text,
    OUT correlation_id uuid
)
LANGUAGE plpgsql
AS $$
BEGIN
    IF tenancy.user_id() IS NOT NULL THEN
        -- What is absent or null names nobody; an empty organization says that there is none.
        IF _attribute.named_user <> tenancy.user_id()
           OR (_attribute.named_org IS NOT NULL AND nullif(_attribute.named_org, '') IS DISTINCT FROM tenancy.org_id()) THEN
            PERFORM tenancy._raise('PT403', 'identity_mismatch',
                'The user or organization named is not the one that is authenticated',
                'Leave user_id and org_id out: they are taken from the identity.');
        END IF;
        _attribute.user_id := tenancy.user_id();
        _attribute.org_id := tenancy.org_id();
        _attribute.tenant_id := tenancy.tenant_id();
        _attribute.namespace := tenancy.identity_namespace();
        _attribute.correlation_id := tenancy._correlation_uuid(tenancy.correlation_id());
        RETURN;
    END IF;
    IF tenancy._identity_expired() OR NOT tenancy._may_act_for_others() THEN
        PERFORM tenancy._raise('PT401', 'not_authenticated', 'Nobody is authenticated in this transaction',
            'Begin a transaction and call tenancy.authenticate(token) first; an identity ends when its token expires.');
    END IF;
    IF coalesce(_attribute.named_user, '') IN ('', tenancy._placeholder()) THEN
        PERFORM tenancy._raise('PT401', 'no_identity', 'Nothing says which user this is attributed to',
            'Name the user (user_id), or call tenancy.act_as first.');
    END IF;
    PERFORM tenancy._require_id(_attribute.named_user, 'user_id');
    IF _attribute.named_org <> '' THEN
        PERFORM tenancy._require_id(_attribute.named_org, 'org_id');
    END IF;
    _attribute.user_id := _attribute.named_user;
    _attribute.org_id := nullif(_attribute.named_org, '');
    _attribute.namespace := tenancy._namespace(_attribute.named_namespace);
    _attribute.tenant_id := tenancy._tenant_of(_attribute.namespace, _attribute.user_id, _attribute.org_id);
END
$$;

COMMENT ON FUNCTION tenancy._attribute(text, text, text) IS
'Who an event or a batch is attributed to: the identity, which what is named must equal; without one, what the service role names. correlation_id: the identity''s, else NULL. There is no placeholder. Errors: PT401 not_authenticated, no_identity; PT403 identity_mismatch and those of the tenant; 22023.';

CREATE FUNCTION tenancy._context(user_id text, org_id text, namespace text) RETURNS jsonb
LANGUAGE plpgsql
IMMUTABLE
AS $$
BEGIN
    RETURN jsonb_build_object('user_id', _context.user_id, 'org_id', _context.org_id)
        || CASE WHEN _context.namespace = '' THEN '{}' ELSE jsonb_build_object('namespace', _context.namespace) END;
END
$$;

COMMENT ON FUNCTION tenancy._context(text, text, text) IS
'Who an event is attributed to, as its envelope''s metadata say it: user_id, org_id, and the namespace of both unless it is the empty one. Ids of two namespaces may be equal and mean different customers.';

CREATE FUNCTION tenancy._placeholder() RETURNS text
LANGUAGE plpgsql
IMMUTABLE
AS $$
BEGIN
    RETURN 'unknown-user';
END
$$;

COMMENT ON FUNCTION tenancy._placeholder() IS
'What the originals of contract H write where they do not know the user: it names nobody.';

CREATE FUNCTION tenancy._named(document jsonb, member text, parameter text) RETURNS text
LANGUAGE plpgsql
STABLE
AS $$
BEGIN
    IF jsonb_typeof(_named.document -> _named.member) NOT IN ('string', 'null') THEN
        PERFORM tenancy._raise('22023', 'invalid_' || _named.parameter,
            format('%s: %s must be a text or null', _named.parameter, _named.member),
            'Ids are written as they stand in tokens.', jsonb_build_object('parameter', _named.parameter));
    END IF;
    RETURN _named.document ->> _named.member;
END
$$;

COMMENT ON FUNCTION tenancy._named(jsonb, text, text) IS
'A member of a document that must be a text or null; NULL where it is absent. Error: 22023 invalid_<parameter>.';

CREATE FUNCTION tenancy._next_sequence(tenant_id text, aggregate_type text, aggregate_id text) RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    number bigint;
BEGIN
    -- The row is locked until the commit: the next event of the aggregate waits, so commits come in the sequence's order.
    -- One statement, since trim_events may remove the row between two.
    INSERT INTO tenancy.event_streams AS s (tenant_id, aggregatetype, aggregateid, last_sequence)
    VALUES (_next_sequence.tenant_id, _next_sequence.aggregate_type, _next_sequence.aggregate_id, 1)
    ON CONFLICT ON CONSTRAINT event_streams_pkey DO UPDATE SET last_sequence = s.last_sequence + 1
    RETURNING s.last_sequence INTO number;
    IF number > 1 THEN
        RETURN number;
    END IF;
    -- A new row. Read with it in hand: an earlier one of this aggregate may have been removed while the insert waited.
    number := number + tenancy._forgotten_sequence(_next_sequence.tenant_id);
    UPDATE tenancy.event_streams AS s
       SET last_sequence = number
     WHERE s.tenant_id = _next_sequence.tenant_id
       AND s.aggregatetype = _next_sequence.aggregate_type
       AND s.aggregateid = _next_sequence.aggregate_id
       AND number > 1;
    RETURN number;
END
$$;

COMMENT ON FUNCTION tenancy._next_sequence(text, text, text) IS
'The next number of an aggregate''s events, under a row lock that is held until the transaction ends. Error: 40001 at REPEATABLE READ and above.';

CREATE FUNCTION tenancy._publish(
    tenant_id text,
    topic text,
    aggregate_type text,
    aggregate_id text,
    source_service text,
    data jsonb,
    metadata jsonb,
    correlation_id uuid,
    event_id uuid DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql
AS $$
DECLARE
    number bigint := tenancy._next_sequence(_publish.tenant_id, _publish.aggregate_type, _publish.aggregate_id);
    correlation uuid := coalesce(_publish.correlation_id, tenancy.uuid_v7());
    published uuid := coalesce(_publish.event_id, tenancy.uuid_v7());
    receiver text;
BEGIN
    -- Twice at most: a derived id that is taken tells the same story a second time, which is another event.
    FOR attempt IN 1..2 LOOP
        INSERT INTO tenancy.event_outbox (tenant_id, id, aggregatetype, aggregateid, type, payload, sequence, correlation_id)
        VALUES (_publish.tenant_id, published, _publish.aggregate_type, _publish.aggregate_id, _publish.topic,
                jsonb_build_object(
                    'event_id', published,
                    'event_type', _publish.topic,
                    'event_timestamp', tenancy._utc_text(clock_timestamp()),
                    'source_service', _publish.source_service,
                    'schema_version', 1,
                    'correlation_id', correlation,
                    'data_schema_uri', NULL,
                    'data', _publish.data,
                    'metadata', _publish.metadata),
                number, correlation)
        ON CONFLICT ON CONSTRAINT event_outbox_pkey DO NOTHING;
        EXIT WHEN FOUND;
        published := tenancy.uuid_v7();
    END LOOP;
    FOR receiver IN SELECT c.consumer FROM tenancy._consumers_of(_publish.topic) AS c LOOP
        INSERT INTO tenancy.event_deliveries (tenant_id, consumer, aggregatetype, aggregateid, sequence, event_id, slot)
        VALUES (_publish.tenant_id, receiver, _publish.aggregate_type, _publish.aggregate_id, number, published,
                tenancy._stream_slot(_publish.tenant_id, _publish.aggregate_type, _publish.aggregate_id));
        PERFORM pg_notify('tenancy_events', receiver);
    END LOOP;
    RETURN published;
END
$$;

COMMENT ON FUNCTION tenancy._publish(text, text, text, text, text, jsonb, jsonb, uuid, uuid) IS
'Writes one event and its deliveries. correlation_id: NULL makes a new one. event_id: a derived id, else a new one (also where the derived one is taken). Returns the event''s id.';

CREATE FUNCTION tenancy._stream_slot(tenant_id text, aggregate_type text, aggregate_id text) RETURNS integer
LANGUAGE plpgsql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN hashtext(_stream_slot.tenant_id || E'\x01' || _stream_slot.aggregate_type || E'\x01' || _stream_slot.aggregate_id);
END
$$;

COMMENT ON FUNCTION tenancy._stream_slot(text, text, text) IS
'A hash of an aggregate: where polling finds it.';

CREATE FUNCTION tenancy._utc_text(moment timestamptz) RETURNS text
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN to_char(_utc_text.moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
END
$$;

COMMENT ON FUNCTION tenancy._utc_text(timestamptz) IS
'A time as events carry it: 2025-08-31T12:05:10.500000Z.';

CREATE FUNCTION tenancy._require_model(model text, document jsonb, parameter text) RETURNS jsonb
LANGUAGE plpgsql
STABLE
AS $$
DECLARE
    reading record;
BEGIN
    PERFORM tenancy._require_value(_require_model.document, _require_model.parameter);
    SELECT * INTO reading FROM tenancy._read_model(_require_model.model, _require_model.document::text);
    IF reading.message IS NOT NULL THEN
        PERFORM tenancy._raise('22023', 'invalid_' || _require_model.parameter,
            format('%s: %s', _require_model.parameter, left(reading.message, 160)),
            'docs/reference/schemas has the JSON Schemas.',
            jsonb_build_object('parameter', _require_model.parameter));
    END IF;
    RETURN reading.document;
END
$$;

COMMENT ON FUNCTION tenancy._require_model(text, jsonb, text) IS
'The document as a model of contract H writes it. Error: 22023 invalid_<parameter>, which names the place.';

CREATE FUNCTION tenancy.publish_event(
    event_type text,
    data jsonb,
    aggregate_type text,
    aggregate_id text,
    metadata jsonb DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kind record;
    who record;
    named_user text;
    named_org text;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(publish_event.event_type, 'event_type');
    PERFORM tenancy._require_id(publish_event.aggregate_type, 'aggregate_type');
    PERFORM tenancy._require_id(publish_event.aggregate_id, 'aggregate_id');
    IF jsonb_typeof(publish_event.data) IS DISTINCT FROM 'object'
       OR jsonb_typeof(coalesce(publish_event.metadata, '{}')) <> 'object' THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'data must be a JSON object, metadata one or NULL',
            'Pass data as {"key": "value"}.');
    END IF;
    SELECT * INTO kind FROM tenancy._event_kind(publish_event.event_type, publish_event.data::text);
    IF kind.reserved THEN
        PERFORM tenancy._raise('PT403', 'reserved_event_type', 'Events of this type come from the extension''s own functions only',
            'Call tenancy.report_consumption() for consumption; what begins with tenancy. or huleedu.entitlements. is the extension''s own.',
            jsonb_build_object('event_type', publish_event.event_type));
    END IF;
    IF kind.topic IS NOT NULL THEN
        PERFORM tenancy._require_model(kind.topic, publish_event.data, 'data');
    END IF;
    named_user := coalesce(tenancy._named(publish_event.data, 'user_id', 'data'),
                           tenancy._named(publish_event.metadata, 'user_id', 'metadata'));
    named_org := coalesce(tenancy._named(publish_event.data, 'org_id', 'data'),
                          tenancy._named(publish_event.metadata, 'org_id', 'metadata'));
    IF publish_event.metadata ->> 'user_id' <> named_user OR publish_event.metadata ->> 'org_id' <> named_org THEN
        PERFORM tenancy._raise('PT403', 'identity_mismatch', 'data and metadata name different users or organizations',
            'Leave user_id and org_id out of metadata: they are written there.');
    END IF;
    who := tenancy._attribute(named_user, named_org);
    RETURN tenancy._publish(who.tenant_id, publish_event.event_type, publish_event.aggregate_type, publish_event.aggregate_id,
        coalesce(publish_event.metadata ->> 'source_service', 'pg_tenancy'), publish_event.data,
        coalesce(publish_event.metadata, '{}') - 'namespace' || tenancy._context(who.user_id, who.org_id, who.namespace),
        coalesce(who.correlation_id, tenancy._correlation_uuid(publish_event.metadata ->> 'correlation_id')));
END
$$;

COMMENT ON FUNCTION tenancy.publish_event(text, jsonb, text, text, jsonb) IS
'Publishes an event in the caller''s transaction and returns its id. It is attributed to the identity: a user_id or org_id in data or metadata must equal it; without an identity the service role names them there. Both are written into the envelope''s metadata, with their namespace unless it is empty. data of an event of contract H are checked. Errors: PT401 not_authenticated, no_identity; PT403 identity_mismatch, reserved_event_type (events of consumption, and whatever begins with tenancy. or huleedu.entitlements.); 22023; 55000.';
