//! The hash chain over a pool's ledger: what one link is made of.

use aws_lc_rs::digest::{Context, SHA256};
use uuid::Uuid;

/// A link: SHA-256.
pub type Hash = [u8; 32];

/// Everything an entry says; times in microseconds since 2000-01-01, amounts in millionths.
#[derive(Clone, Debug, Default)]
pub struct Sealed {
    pub id: Uuid,
    pub seq: i64,
    /// user, seat, subscription, grant, hold, refund_of, organization.
    pub ids: [Option<Uuid>; 7],
    /// tenant, operation, description, reference, metadata, correlation.
    pub texts: [Option<String>; 6],
    /// amount, balance_after, granted_after, drawn_after.
    pub amounts: [Option<i128>; 4],
    pub created_at: i64,
}

/// What a pool's first link follows.
pub fn genesis(pool: Uuid) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(b"pg_tenancy ledger 1");
    context.update(pool.as_bytes());
    finish(context)
}

/// The link of an entry. Each field is preceded by its length, so that no two entries read alike.
pub fn link(before: &Hash, entry: &Sealed) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(before);
    context.update(entry.id.as_bytes());
    context.update(&entry.seq.to_be_bytes());
    context.update(&entry.created_at.to_be_bytes());
    for id in &entry.ids {
        field(&mut context, id.as_ref().map(|id| id.as_bytes().as_slice()));
    }
    for text in &entry.texts {
        field(&mut context, text.as_ref().map(String::as_bytes));
    }
    for amount in &entry.amounts {
        field(&mut context, amount.map(i128::to_be_bytes).as_ref().map(<[u8; 16]>::as_slice));
    }
    finish(context)
}

fn field(context: &mut Context, bytes: Option<&[u8]>) {
    // No field is this long: NULL.
    let length = bytes.map_or(u64::MAX, |bytes| bytes.len() as u64);
    context.update(&length.to_be_bytes());
    context.update(bytes.unwrap_or_default());
}

fn finish(context: Context) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::{Sealed, genesis, link};
    use uuid::Uuid;

    fn entry() -> Sealed {
        Sealed {
            id: Uuid::from_u128(1),
            seq: 1,
            texts: [Some("t".into()), Some("deduction".into()), None, Some("r".into()), Some("{}".into()), None],
            amounts: [Some(-5), Some(95), Some(100), Some(5)],
            ..Sealed::default()
        }
    }

    #[test]
    fn every_field_counts() {
        let start = genesis(Uuid::from_u128(7));
        let whole = link(&start, &entry());
        let changes: [fn(&mut Sealed); 9] = [
            |entry| entry.id = Uuid::from_u128(2),
            |entry| entry.seq = 2,
            |entry| entry.created_at = 1,
            |entry| entry.ids[0] = Some(Uuid::nil()),
            |entry| entry.ids.swap(0, 1),
            |entry| entry.texts[2] = Some(String::new()),
            |entry| entry.texts[0] = Some("tt".into()),
            |entry| entry.amounts[0] = Some(-4),
            |entry| entry.amounts[3] = None,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut changed = entry();
            change(&mut changed);
            // Two empty ids are one.
            let same = number == 4;
            assert_eq!(link(&start, &changed) == whole, same, "{number}");
        }
    }

    #[test]
    fn a_link_hangs_on_the_one_before_and_on_its_pool() {
        let (one, two) = (genesis(Uuid::from_u128(1)), genesis(Uuid::from_u128(2)));
        assert_ne!(link(&one, &entry()), link(&two, &entry()));
        assert_ne!(link(&link(&one, &entry()), &entry()), link(&one, &entry()));
    }
}
