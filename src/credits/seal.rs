//! Sealing the ledger, and checking the seal: the stored side of [`super::chain`].

use super::chain::{Hash, Sealed, genesis, link};
use crate::pg::sql::{self, Arg, Mode, Row};
use crate::pg::{self, Result};
use crate::schema::require_installed;
use pgrx::iter::TableIterator;
use pgrx::{default, name, pg_extern, search_path};
use uuid::Uuid;

/// Entries read at once.
const PAGE: i64 = 1000;

/// Seals the entries that are not sealed yet, up to `max_entries`; the newest link of each pool that grew.
#[pg_extern(volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn seal_ledger(
    max_entries: default!(Option<i64>, "100000"),
) -> TableIterator<'static, (name!(pool_id, pgrx::Uuid), name!(seq, i64), name!(hash, Vec<u8>))> {
    pg::entry(|| {
        require_installed()?;
        let mut left = max_entries.unwrap_or(i64::MAX);
        let mut sealed = Vec::new();
        for pool in unsealed()? {
            if left <= 0 {
                break;
            }
            let (count, head) = seal_pool(pool, left)?;
            left -= count;
            if let Some((seq, hash)) = head.filter(|_| count > 0) {
                sealed.push((pgrx::Uuid::from_bytes(*pool.as_bytes()), seq, hash.to_vec()));
            }
        }
        Ok(TableIterator::new(sealed))
    })
}

fn unsealed() -> Result<Vec<Uuid>> {
    sql::query(
        "SELECT p.pool_id
           FROM tenancy.credit_pools AS p
          WHERE p.seq > coalesce((SELECT max(l.seq) FROM tenancy.credit_links AS l WHERE l.pool_id = p.pool_id), 0)
          ORDER BY p.pool_id",
        &[],
        Mode::Write,
        |row| Ok(row.uuid(1).unwrap_or_default()),
    )
}

/// The pool's newest link.
struct Head {
    seq: i64,
    id: Uuid,
    hash: Hash,
}

fn seal_pool(pool: Uuid, most: i64) -> Result<(i64, Option<(i64, Hash)>)> {
    let mut head = head(pool)?;
    let mut count = 0;
    while count < most {
        let page = entries(pool, head.id, PAGE.min(most - count), Mode::Write)?;
        let full = page.len() as i64 == PAGE;
        for entry in page {
            if entry.seq != head.seq + 1 {
                // A gap is not sealed over: verify_ledger names it.
                return Ok((count, Some((head.seq, head.hash))));
            }
            head = Head { seq: entry.seq, id: entry.id, hash: link(&head.hash, &entry) };
            insert(pool, &head)?;
            count += 1;
        }
        if !full {
            break;
        }
    }
    Ok((count, Some((head.seq, head.hash))))
}

fn insert(pool: Uuid, head: &Head) -> Result<()> {
    // Two sealers make the same links.
    sql::execute(
        "INSERT INTO tenancy.credit_links AS l (pool_id, seq, transaction_id, hash)
         VALUES ($1, $2, $3, $4)
         ON CONFLICT (pool_id, seq) DO NOTHING",
        &[pool.into(), Arg::Long(Some(head.seq)), head.id.into(), head.hash.as_slice().into()],
    )
    .map(drop)
}

fn head(pool: Uuid) -> Result<Head> {
    let found = sql::query_opt(
        "SELECT l.seq, l.transaction_id, l.hash
           FROM tenancy.credit_links AS l
          WHERE l.pool_id = $1
          ORDER BY l.seq DESC
          LIMIT 1",
        &[pool.into()],
        Mode::Write,
        |row| {
            Ok(Head {
                seq: row.get(1).unwrap_or_default(),
                id: row.uuid(2).unwrap_or_default(),
                hash: read_hash(row, 3),
            })
        },
    )?;
    Ok(found.unwrap_or_else(|| Head { seq: 0, id: Uuid::nil(), hash: genesis(pool) }))
}

fn read_hash(row: &Row, ordinal: i32) -> Hash {
    row.get::<Vec<u8>>(ordinal).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default()
}

fn entries(pool: Uuid, after: Uuid, most: i64, mode: Mode) -> Result<Vec<Sealed>> {
    sql::query(
        "SELECT t.id, t.seq, t.created_at,
                t.user_id, t.seat_id, t.subscription_id, t.grant_id, t.hold_id, t.refund_of, t.organization_id,
                t.tenant_id, t.operation_type, t.description, t.reference_id, t.metadata::text, t.correlation_id,
                t.credits_amount, t.balance_after, t.granted_after, t.drawn_after
           FROM tenancy.credit_transactions AS t
          WHERE t.pool_id = $1 AND t.id > $2
          ORDER BY t.id
          LIMIT $3",
        &[pool.into(), after.into(), Arg::Long(Some(most))],
        mode,
        |row| {
            Ok(Sealed {
                id: row.uuid(1).unwrap_or_default(),
                seq: row.get(2).unwrap_or_default(),
                created_at: row.time(3).unwrap_or_default(),
                ids: std::array::from_fn(|index| row.uuid(4 + index as i32)),
                texts: std::array::from_fn(|index| row.text(11 + index as i32)),
                amounts: std::array::from_fn(|index| row.micros(17 + index as i32)),
            })
        },
    )
}

/// The first broken link of each sealed pool, or of one: a changed, missing or inserted entry, or a changed link.
#[pg_extern(name = "_verify_chain", stable, parallel_restricted, security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn verify_chain(
    only_pool: Option<pgrx::Uuid>,
) -> TableIterator<'static, (name!(pool_id, pgrx::Uuid), name!(seq, i64), name!(transaction_id, pgrx::Uuid))> {
    pg::entry(|| {
        let only = only_pool.map(|pool| Uuid::from_bytes(*pool.as_bytes()));
        let pools = sql::query(
            "SELECT DISTINCT l.pool_id FROM tenancy.credit_links AS l WHERE $1 IS NULL OR l.pool_id = $1 ORDER BY l.pool_id",
            &[Arg::Uuid(only)],
            Mode::Read,
            |row| Ok(row.uuid(1).unwrap_or_default()),
        )?;
        let mut broken = Vec::new();
        for pool in pools {
            if let Some((seq, id)) = first_broken(pool)? {
                broken.push((pgrx::Uuid::from_bytes(*pool.as_bytes()), seq, pgrx::Uuid::from_bytes(*id.as_bytes())));
            }
        }
        Ok(TableIterator::new(broken))
    })
}

fn first_broken(pool: Uuid) -> Result<Option<(i64, Uuid)>> {
    let mut before = genesis(pool);
    let (mut seq, mut last) = (0, Uuid::nil());
    loop {
        let links = links(pool, seq)?;
        if links.is_empty() {
            return Ok(None);
        }
        let mut entries = entries(pool, last, links.len() as i64, Mode::Read)?.into_iter();
        for stored in links {
            let whole = entries.next().filter(|entry| {
                entry.seq == seq + 1
                    && stored.seq == entry.seq
                    && stored.id == entry.id
                    && stored.hash == link(&before, entry)
            });
            if whole.is_none() {
                return Ok(Some((seq + 1, stored.id)));
            }
            (seq, last, before) = (stored.seq, stored.id, stored.hash);
        }
    }
}

fn links(pool: Uuid, after: i64) -> Result<Vec<Head>> {
    sql::query(
        "SELECT l.seq, l.transaction_id, l.hash
           FROM tenancy.credit_links AS l
          WHERE l.pool_id = $1 AND l.seq > $2
          ORDER BY l.seq
          LIMIT $3",
        &[pool.into(), Arg::Long(Some(after)), Arg::Long(Some(PAGE))],
        Mode::Read,
        |row| {
            Ok(Head {
                seq: row.get(1).unwrap_or_default(),
                id: row.uuid(2).unwrap_or_default(),
                hash: read_hash(row, 3),
            })
        },
    )
}
