//! Who the directory says somebody is, and which tenant's.

use super::epoch;
use super::refusal::Failure;
use super::tenant::{Facts, Named};
use crate::pg::sql::{self, Arg, Mode};
use crate::pg::{self, Identity};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// As many as a backend keeps.
const MOST: usize = 1024;

#[derive(Default)]
struct Known {
    epoch: u64,
    /// By namespace, user, organization and tenant as they were named.
    identities: HashMap<String, Rc<Identity>>,
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

/// Whether the seat it found, if any, has not ended by itself since; that sends no signal.
pub fn seat_stands(identity: &Identity) -> bool {
    identity.seat_expires_at.is_none_or(|end| end > pg::statement_start_micros())
}

/// As [`resolve`], from what is kept of this epoch where it is there. Refusals are not kept.
pub fn known(named: &Named) -> std::result::Result<Rc<Identity>, Failure> {
    let epoch = epoch::current()?;
    // No id holds a NUL: neither JSON here nor Postgres allows it.
    let key = [named.namespace, named.user, named.org.unwrap_or_default(), named.tenant.unwrap_or_default()].join("\0");
    let known = KNOWN.with_borrow_mut(|known| {
        if known.epoch != epoch {
            *known = Known { epoch, ..Known::default() };
        }
        known.identities.get(&key).cloned()
    });
    if let Some(known) = known.filter(|known| seat_stands(known)) {
        return Ok(known);
    }
    let identity = Rc::new(resolve(named)?);
    KNOWN.with_borrow_mut(|known| {
        if known.epoch == epoch && epoch == pg::epoch() {
            if known.identities.len() >= MOST {
                known.identities.clear();
            }
            known.identities.insert(key, Rc::clone(&identity));
        }
    });
    Ok(identity)
}

/// Asks the directory.
pub fn resolve(named: &Named) -> std::result::Result<Identity, Failure> {
    named.check()?;
    let candidate = named.candidate();
    let found = sql::query_opt(
        "SELECT d.user_uuid, d.organization_uuid, d.org_tenant_id, d.org_tenant_status, d.org_role, d.seat_id, \
                d.candidate_registered, d.candidate_status, d.seat_expires_at \
         FROM tenancy._resolve_directory($1, $2, $3, $4) AS d",
        &[named.namespace.into(), named.user.into(), Arg::Text(named.org), candidate.as_str().into()],
        Mode::ReadLatest,
        |row| {
            let facts = Facts {
                org_tenant: row.text(3),
                org_tenant_status: row.text(4),
                candidate_registered: row.get(7).unwrap_or(false),
                candidate_status: row.text(8),
            };
            let identity = Identity {
                namespace: named.namespace.to_owned(),
                user_id: named.user.to_owned(),
                org_id: named.org.map(str::to_owned),
                org_role: row.text(5),
                pool: if named.org.is_some() { "organization" } else { "personal" }.to_owned(),
                user_uuid: row.uuid(1),
                organization_id: row.uuid(2),
                seat_id: row.uuid(6),
                seat_expires_at: row.time(9),
                ..Identity::default()
            };
            Ok((facts, identity))
        },
    )?;
    let (facts, mut identity) = found.unwrap_or_default();
    identity.tenant_id = named.resolve(&facts)?;
    Ok(identity)
}

/// Whether the directory knows somebody it resolved in the organization: as a member, or by an active seat (which a
/// member by verified claims has, whose membership is kept elsewhere).
pub fn belongs(resolved: &Identity) -> bool {
    resolved.org_role.is_some() || resolved.seat_id.is_some()
}
