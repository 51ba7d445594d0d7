-- Events about a batch: who asked is never a placeholder.

CREATE FUNCTION tenancy._attribute_to_batch(
    batch_tenant text,
    batch_user text,
    batch_org text,
    batch_namespace text,
    named_user text,
    named_org text,
    OUT user_id text,
    OUT org_id text,
    OUT correlation_id uuid
)
LANGUAGE plpgsql
AS $$
DECLARE
    who record;
BEGIN
    -- The command's identity first, then the batch's. Whoever is authenticated is the command's identity.
    IF tenancy.user_id() IS NOT NULL THEN
        who := tenancy._attribute(_attribute_to_batch.named_user, _attribute_to_batch.named_org);
    ELSE
        who := tenancy._attribute(
            coalesce(nullif(_attribute_to_batch.named_user, ''), _attribute_to_batch.batch_user),
            coalesce(nullif(_attribute_to_batch.named_org, ''), _attribute_to_batch.batch_org),
            _attribute_to_batch.batch_namespace);
    END IF;
    IF who.tenant_id <> _attribute_to_batch.batch_tenant THEN
        PERFORM tenancy._raise('PT403', 'batch_of_another_tenant', 'The batch belongs to another tenant than who asks',
            'Leave the identity out of the command: the batch''s is used.');
    END IF;
    PERFORM tenancy._require_batch_organization(_attribute_to_batch.batch_org);
    _attribute_to_batch.user_id := who.user_id;
    _attribute_to_batch.org_id := who.org_id;
    _attribute_to_batch.correlation_id := who.correlation_id;
END
$$;

COMMENT ON FUNCTION tenancy._attribute_to_batch(text, text, text, text, text, text) IS
'Who an event about a batch is attributed to: the identity; without one, whom the service names, else the batch''s own. Errors: PT401, PT403 identity_mismatch, batch_of_another_tenant, batch_of_another_organization.';

CREATE FUNCTION tenancy.comparison_count(students integer) RETURNS bigint
LANGUAGE plpgsql
IMMUTABLE STRICT PARALLEL SAFE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF comparison_count.students < 0 THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'students must not be negative', 'Count the students'' essays.',
            jsonb_build_object('parameter', 'students'));
    END IF;
    RETURN comparison_count.students::bigint * (comparison_count.students - 1) / 2;
END
$$;

COMMENT ON FUNCTION tenancy.comparison_count(integer) IS
'How many comparisons each pair of n students'' essays makes: n(n−1)/2. Anchors do not count. Error: 22023.';

CREATE FUNCTION tenancy.dispatch_cj_assessment(batch_id uuid, command jsonb DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    batch record;
    who record;
    beside jsonb;
    given jsonb;
    essays jsonb;
    data jsonb;
BEGIN
    PERFORM tenancy._require_installed();
    IF jsonb_typeof(coalesce(dispatch_cj_assessment.command, '{}')) <> 'object' THEN
        PERFORM tenancy._raise('22023', 'invalid_command', 'command must be a JSON object or NULL', 'Pass the command''s envelope.');
    END IF;
    beside := coalesce(nullif(dispatch_cj_assessment.command -> 'metadata', 'null'), '{}');
    -- What the command says of the assessment stands in its data, or beside its metadata.
    given := coalesce(nullif(dispatch_cj_assessment.command -> 'data', 'null'), dispatch_cj_assessment.command, '{}');
    IF jsonb_typeof(beside) <> 'object' OR jsonb_typeof(given) <> 'object' THEN
        PERFORM tenancy._raise('22023', 'invalid_command', 'metadata and data of the command must be JSON objects or null',
            'Pass the command''s envelope.');
    END IF;
    batch := tenancy._find_batch(dispatch_cj_assessment.batch_id);
    who := tenancy._attribute_to_batch(batch.tenant_id, batch.user_id, batch.org_id, batch.namespace,
        tenancy._named(beside, 'user_id', 'command'), tenancy._named(beside, 'org_id', 'command'));
    SELECT jsonb_agg(jsonb_build_object('essay_id', e.essay_id, 'text_storage_id', e.text_storage_id, 'spellcheck_metrics', NULL)
                     ORDER BY e.essay_id COLLATE "C") INTO essays
      FROM tenancy.batch_essays AS e
     WHERE e.tenant_id = batch.tenant_id AND e.batch_id = dispatch_cj_assessment.batch_id AND e.status = 'assigned';
    IF essays IS NULL THEN
        PERFORM tenancy._raise('PT422', 'no_ready_essays', 'No slot of the batch holds a text',
            'Assign texts first: tenancy.assign_essay(batch_id, essay_id, text_storage_id).');
    END IF;
    data := jsonb_build_object(
        'event_name', 'els.cj_assessment.requested',
        'entity_id', dispatch_cj_assessment.batch_id,
        'entity_type', 'batch',
        'parent_id', NULL,
        'timestamp', tenancy._utc_text(clock_timestamp()),
        'system_metadata', tenancy._processing_metadata(dispatch_cj_assessment.batch_id, 'pending', 'els.cj_assessment.requested'),
        'essays_for_cj', essays,
        'language', coalesce(given -> 'language', to_jsonb(CASE WHEN batch.course_code LIKE 'SV%' THEN 'sv' ELSE 'en' END)),
        'course_code', batch.course_code,
        'student_prompt_ref', batch.request -> 'student_prompt_ref',
        'llm_config_overrides', coalesce(nullif(given -> 'llm_config_overrides', 'null'), nullif(jsonb_strip_nulls(
            jsonb_build_object('model_override', batch.request -> 'cj_default_llm_model',
                               'temperature_override', batch.request -> 'cj_default_temperature')), '{}')),
        'assignment_id', coalesce(nullif(given -> 'assignment_id', 'null'), batch.request -> 'assignment_id'),
        'user_id', who.user_id,
        'org_id', who.org_id);
    data := tenancy._require_model('huleedu.els.cj_assessment.requested.v1', data, 'command');
    RETURN tenancy._publish(batch.tenant_id, 'huleedu.els.cj_assessment.requested.v1', 'batch',
        dispatch_cj_assessment.batch_id::text, 'essay-lifecycle-service', data,
        beside - 'namespace' || tenancy._context(who.user_id, who.org_id, batch.namespace),
        coalesce(who.correlation_id,
                 tenancy._correlation_uuid(tenancy._named(dispatch_cj_assessment.command, 'correlation_id', 'command')),
                 batch.correlation_id));
END
$$;

COMMENT ON FUNCTION tenancy.dispatch_cj_assessment(uuid, jsonb) IS
'Publishes ELS_CJAssessmentRequestV1 for the batch''s assigned essays and returns the event''s id. Attributed to the identity; without one to the command''s metadata.user_id and org_id, else to the batch''s: never to a placeholder. command: an envelope, or its data (language, llm_config_overrides, assignment_id); NULL: the batch''s own settings. The correlation id is the identity''s, else the command''s, else the batch''s. Errors: PT404 batch_not_found; PT403 identity_mismatch, batch_of_another_tenant, batch_of_another_organization; PT422 no_ready_essays; PT401; 22023; 55000.';

CREATE FUNCTION tenancy.request_pipeline(batch_id uuid, request jsonb) RETURNS uuid
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    batch record;
    who record;
    data jsonb;
BEGIN
    PERFORM tenancy._require_installed();
    IF jsonb_typeof(request_pipeline.request) IS DISTINCT FROM 'object' THEN
        PERFORM tenancy._raise('22023', 'invalid_request', 'request must be a JSON object', 'Pass a ClientBatchPipelineRequestV1.');
    END IF;
    batch := tenancy._find_batch(request_pipeline.batch_id);
    IF lower(btrim(request_pipeline.request ->> 'batch_id')) <> request_pipeline.batch_id::text THEN
        PERFORM tenancy._raise('22023', 'batch_id_mismatch', 'The request names another batch',
            'Leave batch_id out of the request, or name the same batch.', jsonb_build_object('parameter', 'request'));
    END IF;
    who := tenancy._attribute_to_batch(batch.tenant_id, batch.user_id, batch.org_id, batch.namespace,
        tenancy._named(request_pipeline.request, 'user_id', 'request'), tenancy._named(request_pipeline.request, 'org_id', 'request'));
    data := tenancy._require_model('huleedu.commands.batch.pipeline.v1',
        jsonb_build_object('client_correlation_id', coalesce(who.correlation_id, batch.correlation_id))
        || request_pipeline.request || jsonb_build_object('batch_id', request_pipeline.batch_id, 'user_id', who.user_id), 'request');
    RETURN tenancy._publish(batch.tenant_id, 'huleedu.commands.batch.pipeline.v1', 'batch', request_pipeline.batch_id::text,
        'api-gateway', data, tenancy._context(who.user_id, who.org_id, batch.namespace),
        coalesce(who.correlation_id, (data ->> 'client_correlation_id')::uuid));
END
$$;

COMMENT ON FUNCTION tenancy.request_pipeline(uuid, jsonb) IS
'Publishes ClientBatchPipelineRequestV1 (requested_pipeline, …) for a batch and returns the event''s id; the organization stands in the envelope''s metadata. The request may leave out batch_id and user_id; what it names must match. The correlation id is the identity''s, else the request''s client_correlation_id, else the batch''s. Errors: PT404 batch_not_found; PT403 identity_mismatch, batch_of_another_tenant, batch_of_another_organization; 22023 batch_id_mismatch, invalid_request; PT401; 55000.';

CREATE FUNCTION tenancy.report_consumption(
    batch_id uuid,
    resource_type text,
    quantity integer,
    service_name text,
    processing_id text
) RETURNS uuid
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    batch record;
    data jsonb;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(report_consumption.resource_type, 'resource_type');
    PERFORM tenancy._require_id(report_consumption.service_name, 'service_name');
    PERFORM tenancy._require_id(report_consumption.processing_id, 'processing_id');
    IF report_consumption.quantity IS NULL OR report_consumption.quantity < 0 THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'quantity must be 0 or more', 'Pass how many were used.',
            jsonb_build_object('parameter', 'quantity'));
    END IF;
    batch := tenancy._find_batch(report_consumption.batch_id);
    data := jsonb_build_object(
        'event_name', 'resource.consumption.reported',
        'entity_id', report_consumption.batch_id,
        'entity_type', 'batch',
        'parent_id', NULL,
        'timestamp', tenancy._utc_text(clock_timestamp()),
        'user_id', batch.user_id,
        'org_id', batch.org_id,
        'resource_type', report_consumption.resource_type,
        'quantity', report_consumption.quantity,
        'service_name', report_consumption.service_name,
        'processing_id', report_consumption.processing_id,
        'consumed_at', tenancy._utc_text(clock_timestamp()));
    RETURN tenancy._publish(batch.tenant_id, 'huleedu.resource.consumption.v1', 'batch', report_consumption.batch_id::text,
        report_consumption.service_name, data, tenancy._context(batch.user_id, batch.org_id, batch.namespace),
        coalesce(tenancy._correlation_uuid(tenancy.correlation_id()), batch.correlation_id));
END
$$;

COMMENT ON FUNCTION tenancy.report_consumption(uuid, text, integer, text, text) IS
'Publishes ResourceConsumptionV1 with the batch''s user and organization and returns the event''s id; consume_event charges it. quantity: 0 or more, for comparisons tenancy.comparison_count(students). Errors: PT404 batch_not_found (nothing to attribute it to), PT401, PT409, 22023, 55000.';
