//! The accessors, before anybody is authenticated.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    #[pg_test]
    fn without_an_identity_every_accessor_is_null() {
        let nulls = Spi::get_one::<bool>(
            "SELECT num_nulls(tenancy.user_id(), tenancy.tenant_id(), tenancy.org_id(), tenancy.org_role()) = 4",
        );
        assert_eq!(nulls, Ok(Some(true)));
    }
}
