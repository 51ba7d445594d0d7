//! Ids of ledger entries: uuid version 7 (RFC 9562) with the entry's time to the microsecond (§6.2, method 3), its
//! number in the pool (method 1) and the pool's tag. Within a pool they sort as the entries were made, so the primary
//! key is also the index by time; the tag finds the pool of a bare id through `credit_pools.tag`.

use uuid::Uuid;

/// Microseconds from 1970-01-01 to Postgres' epoch, 2000-01-01.
const EPOCH: i64 = 946_684_800_000_000;

/// The id of entry number `seq` of `pool`, made at `at` (microseconds since 2000-01-01).
pub fn entry_id(pool: Uuid, at: i64, seq: i64) -> Uuid {
    let (milliseconds, fraction) = split(at);
    let mut bytes = [0u8; 16];
    bytes[..6].copy_from_slice(&milliseconds.to_be_bytes()[2..]);
    bytes[6..8].copy_from_slice(&(0x7000 | fraction).to_be_bytes());
    bytes[8..12].copy_from_slice(&(0x8000_0000 | (seq as u32 & 0x3FFF_FFFF)).to_be_bytes());
    bytes[12..].copy_from_slice(&pool.as_bytes()[12..]);
    Uuid::from_bytes(bytes)
}

/// The largest id an entry made at `at` or before can have.
#[allow(dead_code)] // for balances at an earlier time
pub fn last_id_at(at: i64) -> Uuid {
    let (milliseconds, fraction) = split(at);
    let mut bytes = [0xFFu8; 16];
    bytes[..6].copy_from_slice(&milliseconds.to_be_bytes()[2..]);
    bytes[6..8].copy_from_slice(&(0x7000 | fraction).to_be_bytes());
    bytes[8] = 0xBF;
    Uuid::from_bytes(bytes)
}

/// What finds the pool of a bare id: the last four bytes, as `credit_pools.tag` holds them.
pub fn tag(id: Uuid) -> i32 {
    let bytes = id.as_bytes();
    i32::from_be_bytes([bytes[12], bytes[13], bytes[14], bytes[15]])
}

/// Milliseconds since 1970 and the rest of one in 4096ths, which tell any two microseconds apart.
fn split(at: i64) -> (u64, u16) {
    let micros = at.saturating_add(EPOCH).max(0) as u64;
    ((micros / 1000) & 0xFFFF_FFFF_FFFF, (micros % 1000 * 4096 / 1000) as u16)
}

#[cfg(test)]
mod tests {
    use super::{entry_id, last_id_at, tag};
    use uuid::Uuid;

    #[test]
    fn ids_sort_by_time_then_by_number() {
        let pool = Uuid::from_u128(0xABCD_EF01_DEAD_BEEF);
        let mut last = Uuid::nil();
        for step in 0..5000i64 {
            // Two entries a microsecond.
            let id = entry_id(pool, 800_000_000_000_000 + step / 2, step + 1);
            assert!(id > last, "{step}");
            assert_eq!((id.get_version_num(), tag(id)), (7, 0xDEAD_BEEFu32 as i32));
            assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
            last = id;
        }
    }

    #[test]
    fn the_last_id_of_a_time_parts_before_from_after() {
        let pool = Uuid::from_u128(u128::MAX);
        for at in [0, 999, 1000, 812_345_678_901_234] {
            let bound = last_id_at(at);
            assert!(entry_id(pool, at, i64::MAX) <= bound);
            assert!(entry_id(pool, at + 1, 1) > bound);
        }
    }

    #[test]
    fn the_time_is_that_of_the_server() {
        // 2026-01-05 10:00:00 UTC
        let id = entry_id(Uuid::nil(), 820_922_400_000_000, 1);
        assert_eq!(id.get_timestamp().unwrap().to_unix().0, 1_767_607_200);
    }
}
