//! Internal ids: uuid version 7, so that they sort by time.

use pgrx::pg_extern;
use uuid::Uuid;

/// A new id (RFC 9562 version 7).
#[pg_extern(volatile, parallel_safe)]
fn uuid_v7() -> pgrx::Uuid {
    pgrx::Uuid::from_bytes(*Uuid::now_v7().as_bytes())
}

/// A new id for something in `pool`: version 7, its last four bytes those of the pool's id, so that a
/// bare id finds its pool (`credit_pools.tag`) without an index on the tables that grow.
#[pg_extern(name = "_uuid_v7_for", volatile, parallel_safe)]
fn uuid_v7_for(pool: pgrx::Uuid) -> pgrx::Uuid {
    pgrx::Uuid::from_bytes(*tagged(Uuid::from_bytes(*pool.as_bytes())).as_bytes())
}

/// A new id that carries the tag of `pool`.
pub fn tagged(pool: Uuid) -> Uuid {
    let mut bytes = *Uuid::now_v7().as_bytes();
    bytes[12..].copy_from_slice(&pool.as_bytes()[12..]);
    Uuid::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::tagged;
    use uuid::Uuid;

    #[test]
    fn a_tagged_id_sorts_by_time_and_names_its_pool() {
        let pool = Uuid::now_v7();
        let ids: Vec<Uuid> = (0..1000).map(|_| tagged(pool)).collect();
        assert!(ids.is_sorted());
        assert!(ids.iter().all(|id| id.get_version_num() == 7 && id.as_bytes()[12..] == pool.as_bytes()[12..]));
    }
}
