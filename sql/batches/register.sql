-- Registering a batch: the identity is written down once, here, and threaded through everything after it.

COMMENT ON FUNCTION tenancy._is_batch_of_another_tenant(text, uuid) IS
'Whether another tenant has a batch of that id, by what is committed at this moment.';

-- A service that reports results may name a batch by its id alone: nobody makes another tenant's id mean two but a service.
CREATE FUNCTION tenancy._claim_batch_id(tenant_id text, batch_id uuid, may_share boolean) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    -- Until the transaction ends: who comes meanwhile with the same id waits, and then sees what was committed.
    PERFORM pg_advisory_xact_lock(hashtext('pg_tenancy'), hashtext('batch ' || _claim_batch_id.batch_id));
    IF NOT _claim_batch_id.may_share
       AND tenancy._is_batch_of_another_tenant(_claim_batch_id.tenant_id, _claim_batch_id.batch_id) THEN
        PERFORM tenancy._raise('PT409', 'batch_id_taken', 'This id is another batch''s',
            'Leave known_batch_id out: an id is made.');
    END IF;
END
$$;

COMMENT ON FUNCTION tenancy._claim_batch_id(text, uuid, boolean) IS
'Keeps a batch id that somebody named for this transaction, and refuses one that another tenant''s batch has, unless ids may be shared. Error: PT409 batch_id_taken.';

CREATE FUNCTION tenancy._insert_batch(
    tenant_id text,
    namespace text,
    batch_id uuid,
    user_id text,
    org_id text,
    essay_ids text[],
    request jsonb,
    correlation_id uuid
) RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO tenancy.batches (tenant_id, batch_id, user_id, org_id, namespace, class_id, course_code,
                                 expected_essay_count, request, correlation_id, timeout_at)
    VALUES (_insert_batch.tenant_id, _insert_batch.batch_id, _insert_batch.user_id, _insert_batch.org_id,
            _insert_batch.namespace, _insert_batch.request ->> 'class_id', _insert_batch.request ->> 'course_code',
            cardinality(_insert_batch.essay_ids), _insert_batch.request, _insert_batch.correlation_id,
            now() + interval '24 hours')
    ON CONFLICT ON CONSTRAINT batches_pkey DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO tenancy.batch_essays (tenant_id, batch_id, essay_id)
    SELECT _insert_batch.tenant_id, _insert_batch.batch_id, essay FROM unnest(_insert_batch.essay_ids) AS essay;
    RETURN true;
END
$$;

COMMENT ON FUNCTION tenancy._insert_batch(text, text, uuid, text, text, text[], jsonb, uuid) IS
'Writes a batch with its empty slots; false where the tenant has a batch of that id already.';

CREATE FUNCTION tenancy.register_batch(
    request jsonb,
    known_batch_id uuid DEFAULT NULL,
    OUT batch_id uuid,
    OUT correlation_id uuid,
    OUT status text
)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    who record;
    checked jsonb;
    essays text[];
BEGIN
    PERFORM tenancy._require_installed();
    IF jsonb_typeof(register_batch.request) IS DISTINCT FROM 'object' THEN
        PERFORM tenancy._raise('22023', 'invalid_request', 'request must be a JSON object', 'Pass a BatchRegistrationRequestV1.');
    END IF;
    -- The original's gateway writes the verified user into the request; here it may be left out.
    checked := tenancy._require_model('registration',
        jsonb_strip_nulls(jsonb_build_object('user_id', tenancy.user_id())) || register_batch.request, 'request');
    IF (checked ->> 'expected_essay_count')::numeric > 10000 THEN
        PERFORM tenancy._raise('22023', 'invalid_request', 'expected_essay_count must be at most 10000',
            'Register several batches.', jsonb_build_object('parameter', 'expected_essay_count'));
    END IF;
    who := tenancy._attribute(checked ->> 'user_id', checked ->> 'org_id');
    checked := checked || jsonb_build_object('user_id', who.user_id, 'org_id', who.org_id);
    register_batch.batch_id := coalesce(register_batch.known_batch_id, tenancy.uuid_v7());
    register_batch.correlation_id := coalesce(who.correlation_id, tenancy.uuid_v7());
    IF register_batch.known_batch_id IS NOT NULL THEN
        PERFORM tenancy._claim_batch_id(who.tenant_id, register_batch.known_batch_id,
            may_share => tenancy.user_id() IS NULL OR tenancy._may_act_for_others());
    END IF;

    -- Ids of the client's making are accepted and not used, as the original does.
    essays := ARRAY(SELECT tenancy.uuid_v7()::text FROM generate_series(1, (checked ->> 'expected_essay_count')::integer));
    IF NOT tenancy._insert_batch(who.tenant_id, who.namespace, register_batch.batch_id, who.user_id, who.org_id, essays,
                                 register_batch.request || checked, register_batch.correlation_id) THEN
        SELECT b.correlation_id INTO register_batch.correlation_id FROM tenancy.batches AS b
         WHERE b.tenant_id = who.tenant_id AND b.batch_id = register_batch.batch_id;
        register_batch.status := 'already_registered';
        RETURN;
    END IF;
    PERFORM tenancy._publish(who.tenant_id, 'huleedu.batch.essays.registered.v1', 'batch', register_batch.batch_id::text,
        'batch-service',
        jsonb_build_object(
            'event', 'batch.essays.registered',
            'entity_id', register_batch.batch_id,
            'expected_essay_count', cardinality(essays),
            'essay_ids', to_jsonb(essays),
            'metadata', tenancy._processing_metadata(register_batch.batch_id, NULL, 'batch.essays.registered'),
            'course_code', checked -> 'course_code',
            'student_prompt_ref', checked -> 'student_prompt_ref',
            'user_id', who.user_id,
            'org_id', who.org_id,
            'class_id', checked -> 'class_id'),
        tenancy._context(who.user_id, who.org_id, who.namespace), register_batch.correlation_id);
    register_batch.status := 'registered';
END
$$;

COMMENT ON FUNCTION tenancy.register_batch(jsonb, uuid) IS
'Registers a batch (request: BatchRegistrationRequestV1) with new essay ids, and publishes BatchEssaysRegistered in the same transaction. User and organization are the identity''s: a request that names others is refused; without an identity the service role names them in the request. known_batch_id: an id of the caller''s making; one that is registered already changes nothing and answers status already_registered. Errors: PT401 not_authenticated, no_identity; PT403 identity_mismatch; PT409 batch_id_taken (from an application, where another tenant''s batch has the id); 22023 invalid_request; 55000.';

CREATE FUNCTION tenancy._processing_metadata(batch_id uuid, stage text, event text) RETURNS jsonb
LANGUAGE plpgsql
AS $$
BEGIN
    RETURN jsonb_build_object(
        'entity_id', _processing_metadata.batch_id,
        'entity_type', 'batch',
        'parent_id', NULL,
        'timestamp', tenancy._utc_text(clock_timestamp()),
        'processing_stage', _processing_metadata.stage,
        'started_at', NULL,
        'completed_at', NULL,
        'event', _processing_metadata.event,
        'error_info', jsonb_build_object());
END
$$;

COMMENT ON FUNCTION tenancy._processing_metadata(uuid, text, text) IS
'SystemProcessingMetadata of contract H for a batch.';
