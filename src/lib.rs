//! `pg_tenancy`: who is asking, what may they see, who pays; answered in the caller's own transaction.

::pgrx::pg_module_magic!(name, version);
