//! Tests that run inside the database, one file a domain. Each file holds an inline `#[pg_schema] mod tests`:
//! pgrx looks for them in the schema `tests`.

mod accessors;
mod jsonb;
