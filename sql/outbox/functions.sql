-- What SQL may know of the functions of src/outbox/, and validate_event.

COMMENT ON FUNCTION tenancy._read_event(text) IS
'Reads an envelope given as text; always one row. problem and message: what is wrong with it, else NULL; topic: the event of contract H it holds; event_timestamp: UTC, ISO 8601; body_sha256: over {data, event_id}; envelope: as it is understood.';
COMMENT ON FUNCTION tenancy._read_model(text, text) IS
'Reads a document as a model of contract H: the data of the event with this topic, or registration. message: what is wrong with it; document: as the model writes it.';
COMMENT ON FUNCTION tenancy._event_kind(text, text) IS
'The topic of contract H an event belongs to, NULL for any other, and whether only the extension''s own functions publish it. Error: 22023 invalid_data.';
COMMENT ON FUNCTION tenancy._derived_event_id(text, text) IS
'The id of a published event: uuid5 of its topic and data (contract H).';
COMMENT ON FUNCTION tenancy._correlation_uuid(text) IS
'A correlation id as a UUID: itself where it is one, else uuid5 of the text (contract H).';

COMMENT ON FUNCTION tenancy._consumers_of(text) IS
'The consumers that are given events of a topic, as of now, whatever the transaction''s snapshot.';
COMMENT ON FUNCTION tenancy._forgotten_sequence(text) IS
'The highest sequence of the tenant''s aggregates that trim_events forgot, as of now, whatever the transaction''s snapshot; 0: none.';
COMMENT ON FUNCTION tenancy._identity_expired() IS
'Whether the transaction had an identity that ended, because its token expired or because it was cleared: it may not act as if it had none.';

CREATE FUNCTION tenancy.validate_event(envelope jsonb, OUT valid boolean, OUT reason text, OUT event jsonb)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    reading record;
BEGIN
    SELECT * INTO reading FROM tenancy._read_event(coalesce(validate_event.envelope, 'null')::text);
    validate_event.valid := reading.problem IS NULL;
    validate_event.reason := reading.problem || ': ' || reading.message;
    validate_event.event := reading.envelope;
END
$$;

COMMENT ON FUNCTION tenancy.validate_event(jsonb) IS
'Whether a document is an event envelope whose data are what its type needs (contract H: unknown members are ignored, integers may be written "5" or 5.0), why not, and how it is understood. Reads no table and never raises.';
