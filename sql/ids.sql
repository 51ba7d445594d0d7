-- What SQL may know of the functions of src/ids.rs and src/changes.rs.

COMMENT ON FUNCTION tenancy.uuid_v7() IS 'A new id: UUID version 7 (RFC 9562), so that ids sort by time. The default of our id columns.';
COMMENT ON FUNCTION tenancy._uuid_v7_for(uuid) IS
'A new id (UUID version 7) for something in a credit pool: its last four bytes are those of the pool''s id, so that the bare id finds its pool.';
COMMENT ON FUNCTION tenancy._changed(text) IS
'Called by whoever changes what backends cache (directory, issuers, keys, revocations): from this transaction''s commit on, every backend reads it anew. The table''s name without its schema. Error: 55000 schema_missing.';
