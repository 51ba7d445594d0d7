//! Contract H: whether consumption by metric would be paid for. Asks, and takes nothing.

use super::consume::{available, cost, limited, tenant};
use super::owner::organization_not_found;
use super::payer::{self, present};
use crate::limits::{self, Asked};
use crate::pg::sql::{self, Arg, Mode};
use crate::pg::{self, Composite, Decimal, Error, Fields, Jsonb, Result, State};
use crate::schema::require_installed;
use pgrx::{pg_extern, search_path};
use std::ffi::CStr;
use uuid::Uuid;

/// Whether consumption would be paid for, and from where; nothing is reserved.
#[pg_extern(stable, parallel_restricted, security_definer, requires = ["credits_types"])]
#[search_path(pg_catalog, pg_temp)]
fn check_credits(user_id: Option<&str>, org_id: Option<&str>, requirements: Option<Jsonb>) -> Composite<Verdict> {
    pg::entry(|| {
        require_installed()?;
        let user_id = present(user_id, "user_id")?;
        let org_id = org_id.filter(|id| !id.trim().is_empty());
        let namespace = payer::allow(user_id, org_id)?;
        let organization =
            org_id.map(|id| payer::organization(&namespace, id)?.ok_or_else(organization_not_found)).transpose()?;
        let user = payer::user(&namespace, user_id)?;
        let tenant = tenant(organization, user_id, &namespace)?;
        let verdict = check(&tenant, user_id, user, organization, requirements)?;
        Ok(Composite(verdict))
    })
}

/// Whether consumption would be paid for: `tenancy.credit_check`.
struct Verdict {
    allowed: bool,
    required: i64,
    available: i64,
    /// `org` or `user`; none where nothing is to be paid, or nobody can.
    source: Option<&'static str>,
    denial_reason: Option<&'static str>,
}

impl Fields for Verdict {
    const NAME: &'static CStr = c"credit_check";
    const SQL: &'static str = "tenancy.credit_check";

    fn fields(&self) -> Vec<Arg<'_>> {
        vec![
            Arg::Bool(Some(self.allowed)),
            Arg::Micros(Some(self.required.into())),
            Arg::Micros(Some(self.available.into())),
            Arg::Text(self.source),
            Arg::Text(self.denial_reason),
        ]
    }
}

fn check(
    tenant: &str,
    user_id: &str,
    user: Option<Uuid>,
    organization: Option<Uuid>,
    requirements: Option<Jsonb>,
) -> Result<Verdict> {
    let paid =
        |required, available, source| Verdict { allowed: true, required, available, source, denial_reason: None };
    let denied = |required, available, reason| Verdict {
        allowed: false,
        required,
        available,
        source: None,
        denial_reason: Some(reason),
    };
    let mut required: i64 = 0;
    for (metric, units) in read_requirements(requirements)? {
        let cost = cost(&metric, units)?;
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        match limits::would_admit(tenant, &metric, &limited(user_id), units)? {
            Asked::Within => {}
            Asked::Beyond => return Ok(denied(cost, 0, "rate_limit_exceeded")),
            Asked::Unknowable => return Ok(denied(cost, 0, "system_error")),
        }
        required = required.saturating_add(cost);
    }
    if required == 0 {
        return Ok(paid(0, 0, None));
    }
    if let Some(organization) = organization {
        let of_organization = available(organization, Mode::Read)?;
        if of_organization >= required {
            return Ok(paid(required, of_organization, Some("org")));
        }
    }
    let of_user = user.map_or(Ok(0), |user| available(user, Mode::Read))?;
    if of_user >= required {
        return Ok(paid(required, of_user, Some("user")));
    }
    Ok(denied(required, of_user, "insufficient_credits"))
}

fn read_requirements(requirements: Option<Jsonb>) -> Result<Vec<(String, i128)>> {
    let invalid = || {
        Error::new(
            State::INVALID_PARAMETER,
            "invalid_argument",
            "requirements must be a JSON object of metrics and whole numbers of units",
        )
        .hint("Pass {\"cj_comparison\": 3}.")
        .detail("parameter", "requirements")
    };
    let requirements = requirements.filter(Jsonb::is_object).ok_or_else(invalid)?;
    sql::query(
        "SELECT r.key, r.value #>> '{}', jsonb_typeof(r.value) FROM jsonb_each($1) AS r ORDER BY r.key",
        &[Arg::Jsonb(Some(&requirements))],
        Mode::Read,
        |row| {
            let units = row.text(2).and_then(|text| Decimal::from_text(&text));
            match (row.text(1), units, row.text(3).as_deref()) {
                (Some(metric), Some(Decimal::Micros(micros)), Some("number"))
                    if micros >= 0 && micros % 1_000_000 == 0 =>
                {
                    Ok((metric, micros / 1_000_000))
                }
                _ => Err(invalid()),
            }
        },
    )
}
