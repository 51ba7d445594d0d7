//! Which claim means what, issuer by issuer.
//!
//! Each field has an ordered list of claim paths; the first trimmed, non-empty *string* wins, and anything else is
//! passed over (the rule of HuleEdu's gateway). An issuer's overrides replace a field's list.

use super::claims::{Claims, is_id};
use super::clerk;
use super::json::{Json, Object};
use super::reason::Reason;
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;

/// The providers whose tokens we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Any OpenID Connect provider.
    Generic,
    /// Clerk's session tokens, versions 1 and 2.
    Clerk,
    /// Auth0's access tokens.
    Auth0,
    /// WorkOS AuthKit's access tokens.
    WorkOs,
    /// Supabase Auth's access tokens. `user_metadata` is the user's own to edit: never read.
    Supabase,
    /// The product's own tokens, with the organization's pool in them.
    Pooled,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Profile; 6] =
        [Profile::Generic, Profile::Clerk, Profile::Auth0, Profile::WorkOs, Profile::Supabase, Profile::Pooled];

    /// The profile of that name, as `tenancy.add_issuer` takes it.
    pub fn parse(name: &str) -> Option<Profile> {
        Profile::ALL.into_iter().find(|profile| profile.name() == name)
    }

    /// The profile's name.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Generic => "generic",
            Profile::Clerk => "clerk",
            Profile::Auth0 => "auth0",
            Profile::WorkOs => "workos",
            Profile::Supabase => "supabase",
            Profile::Pooled => "pooled",
        }
    }

    fn paths(self, field: Field) -> &'static [&'static str] {
        use Field::{
            Correlation, Org, OrgRole, OrganizationId, Permissions, Pool, Seat, SeatRole, Session, Tenant, User,
        };
        use Profile::{Auth0, Clerk, Pooled, Supabase, WorkOs};
        match (self, field) {
            (_, User) => &["sub"],
            (Clerk, Org) => &["org_id"],
            (Auth0 | WorkOs, Org) => &["org_id"],
            (Supabase, Org) => &["org_id", "app_metadata.org_id", "app_metadata.organization_id"],
            (Pooled, Org) => &["clerk_org_id", "org_id", "org"],
            (_, Org) => &["org_id", "org", "organization_id", "clerk_org_id", "o.id"],
            (Supabase, Tenant) => &["tenant_id", "tid", "app_metadata.tenant_id"],
            (_, Tenant) => &["tenant_id", "tid"],
            (WorkOs, OrgRole) => &["role"],
            (Supabase, OrgRole) => &["org_role", "app_metadata.org_role"],
            (Pooled, OrgRole) => &["org_role", "seat_role"],
            (_, OrgRole) => &["org_role"],
            (Clerk, Permissions) => &["org_permissions"],
            (Auth0, Permissions) => &["permissions", "scope"],
            (Supabase, Permissions) => &["permissions", "app_metadata.permissions"],
            (_, Permissions) => &["permissions", "org_permissions"],
            (Supabase | Pooled, Session) => &["session_id", "sid"],
            (_, Session) => &["sid", "session_id"],
            (_, Correlation) => &["correlation_id"],
            (Pooled, Pool) => &["pool"],
            (Pooled, Seat) => &["seat_id"],
            (Pooled, SeatRole) => &["seat_role"],
            (Pooled, OrganizationId) => &["organization_id"],
            (_, Pool | Seat | SeatRole | OrganizationId) => &[],
        }
    }
}

/// What a token can tell about its bearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    User,
    Org,
    Tenant,
    OrgRole,
    Permissions,
    Session,
    Correlation,
    Pool,
    Seat,
    SeatRole,
    OrganizationId,
}

impl Field {
    const ALL: [Field; 11] = [
        Field::User,
        Field::Org,
        Field::Tenant,
        Field::OrgRole,
        Field::Permissions,
        Field::Session,
        Field::Correlation,
        Field::Pool,
        Field::Seat,
        Field::SeatRole,
        Field::OrganizationId,
    ];

    /// The name in `claim_paths` and in DETAIL.
    fn name(self) -> &'static str {
        match self {
            Field::User => "user",
            Field::Org => "org",
            Field::Tenant => "tenant",
            Field::OrgRole => "org_role",
            Field::Permissions => "permissions",
            Field::Session => "session",
            Field::Correlation => "correlation",
            Field::Pool => "pool",
            Field::Seat => "seat",
            Field::SeatRole => "seat_role",
            Field::OrganizationId => "organization_id",
        }
    }
}

/// Who a token says its bearer is, in external ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The user.
    pub user: &'a str,
    /// The organization the user is acting in; None: personal.
    pub org: Option<&'a str>,
    /// The tenant, where the token names one.
    pub tenant: Option<&'a str>,
    /// The user's role in the organization.
    pub org_role: Option<Cow<'a, str>>,
    /// Permissions, in the token's order.
    pub permissions: Vec<Cow<'a, str>>,
    /// The provider's session.
    pub session_id: Option<&'a str>,
    /// The request's correlation id, where the token carries one.
    pub correlation_id: Option<&'a str>,
    /// Which pool pays: `organization` or `personal`.
    pub pool: Option<&'a str>,
    /// The seat, an internal id as text.
    pub seat_id: Option<&'a str>,
    /// The seat's role.
    pub seat_role: Option<&'a str>,
    /// The organization's internal id as text.
    pub organization_id: Option<&'a str>,
}

/// Overrides that are not `{"field": ["path", …], …}` with known fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingError {
    /// The member at fault; empty where the whole is no object.
    pub field: String,
}

impl fmt::Display for MappingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Field::ALL.iter().map(|field| field.name()).collect();
        write!(f, "claim_paths must map each of {} to an array of claim paths", names.join(", "))
    }
}

impl std::error::Error for MappingError {}

/// A profile with an issuer's overrides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    profile: Profile,
    overridden: Vec<Field>,
    /// Where each field is looked for.
    paths: [Vec<Path>; Field::ALL.len()],
}

/// Where a claim may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Path {
    text: String,
    has_dot: bool,
}

impl Mapping {
    /// A profile as it is, or with overrides: `{"org": ["org_id", "o.id"], "tenant": […], …}`. A single string stands
    /// for an array of one; an empty array means that the field is never taken from the token.
    pub fn new(profile: Profile, overrides: Option<&Value>) -> Result<Mapping, MappingError> {
        let of_profile = |field: Field| profile.paths(field).iter().map(|path| Path::new(path)).collect();
        let mut mapping = Mapping { profile, overridden: Vec::new(), paths: Field::ALL.map(of_profile) };
        let members = match overrides {
            None | Some(Value::Null) => return Ok(mapping),
            Some(Value::Object(members)) => members,
            Some(_) => return Err(MappingError { field: String::new() }),
        };
        for (name, paths) in members {
            let error = || MappingError { field: name.clone() };
            let field = Field::ALL.into_iter().find(|field| field.name() == name).ok_or_else(error)?;
            let paths = match paths {
                Value::String(_) => std::slice::from_ref(paths),
                Value::Array(paths) => paths,
                _ => return Err(error()),
            };
            let paths = paths
                .iter()
                .map(|path| path.as_str().filter(|path| !path.trim().is_empty()).map(Path::new).ok_or_else(error))
                .collect::<Result<_, _>>()?;
            mapping.overridden.push(field);
            mapping.paths[field as usize] = paths;
        }
        Ok(mapping)
    }

    /// Reads who the bearer is. Only to be believed of claims that were verified and validated.
    pub fn resolve<'a>(&self, claims: &'a Claims<'_>) -> Result<Subject<'a>, Reason> {
        let members = claims.members();
        let mut subject = Subject {
            user: self.id(members, Field::User)?.ok_or(Reason::MissingClaim("user"))?,
            org: self.id(members, Field::Org)?,
            tenant: self.id(members, Field::Tenant)?,
            org_role: self.id(members, Field::OrgRole)?.map(Cow::Borrowed),
            permissions: self.permissions(members),
            session_id: self.id(members, Field::Session)?,
            correlation_id: self.id(members, Field::Correlation)?,
            pool: self.id(members, Field::Pool)?,
            seat_id: self.id(members, Field::Seat)?,
            seat_role: self.id(members, Field::SeatRole)?,
            organization_id: self.id(members, Field::OrganizationId)?,
        };
        if self.profile == Profile::Clerk {
            self.resolve_clerk(members, &mut subject)?;
        }
        Ok(subject)
    }

    /// Version 2 tokens have the organization in `o`, and only there: a template could add an `org_id` of its own.
    fn resolve_clerk<'a>(&self, members: &'a Object<'_>, subject: &mut Subject<'a>) -> Result<(), Reason> {
        clerk::check_session(members)?;
        let is_version_2 = members.get("v").and_then(Json::as_integer) == Some(2);
        let organization = members.get("o").and_then(Json::as_object);
        if !is_version_2 && organization.is_none() {
            return Ok(());
        }
        if !self.overrides(Field::Org) {
            let id = organization.and_then(|organization| string(organization.get("id")?));
            if id.is_some_and(|id| !is_id(id)) {
                return Err(Reason::InvalidClaim("org"));
            }
            subject.org = id;
        }
        if !self.overrides(Field::OrgRole) {
            subject.org_role = organization.and_then(clerk::org_role);
        }
        if !self.overrides(Field::Permissions) {
            let permissions = organization.map(|organization| clerk::permissions(members, organization));
            subject.permissions = permissions.unwrap_or_default().into_iter().map(Cow::Owned).collect();
        }
        Ok(())
    }

    /// The members beside `trusted` in which this mapping would find something, whatever it is.
    pub fn reads<'a>(&'a self, members: &Object<'_>, trusted: &[&str]) -> Vec<&'a str> {
        let is_there = |member: &str, rest: Option<&str>| match (members.get(member), rest) {
            (Some(Json::Object(inner)), Some(rest)) => find(inner, rest, &|_| Some(())).is_some(),
            (found, rest) => found.is_some() && rest.is_none(),
        };
        let mut found: Vec<&str> = Vec::new();
        for path in self.paths.iter().flatten().map(|path| path.text.as_str()) {
            let inside = path.match_indices('.').map(|(dot, _)| (&path[..dot], Some(&path[dot + 1..])));
            for (member, rest) in std::iter::once((path, None)).chain(inside) {
                if !trusted.contains(&member) && !found.contains(&member) && is_there(member, rest) {
                    found.push(member);
                }
            }
        }
        found
    }

    fn overrides(&self, field: Field) -> bool {
        self.overridden.contains(&field)
    }

    fn first<'a, T>(
        &self,
        members: &'a Object<'_>,
        field: Field,
        take: impl Fn(&'a Json<'_>) -> Option<T>,
    ) -> Option<T> {
        self.paths[field as usize].iter().find_map(|path| match path.has_dot {
            true => find(members, &path.text, &take),
            false => members.get(&path.text).and_then(&take),
        })
    }

    /// The first non-empty string, trimmed; refused where it is then too long for an id or holds control characters.
    fn id<'a>(&self, members: &'a Object<'_>, field: Field) -> Result<Option<&'a str>, Reason> {
        match self.first(members, field, string) {
            Some(id) if !is_id(id) => Err(Reason::InvalidClaim(field.name())),
            id => Ok(id),
        }
    }

    /// The first array of strings, or the first string of words (RFC 6749 §3.3, `scope`); other elements are skipped.
    fn permissions<'a>(&self, members: &'a Object<'_>) -> Vec<Cow<'a, str>> {
        let take = |value: &'a Json<'_>| -> Option<Vec<Cow<'a, str>>> {
            let permissions: Vec<_> = match value {
                Json::Array(values) => values.iter().filter_map(string).map(Cow::Borrowed).collect(),
                Json::Text(words) => words.split_whitespace().map(Cow::Borrowed).collect(),
                _ => return None,
            };
            (!permissions.is_empty()).then_some(permissions)
        };
        self.first(members, Field::Permissions, take).unwrap_or_default()
    }
}

impl Path {
    fn new(text: &str) -> Self {
        Path { text: text.to_owned(), has_dot: text.contains('.') }
    }
}

/// Finds a claim by path: a member of exactly that name first (names of claims may hold dots, and Auth0's are URLs),
/// then, at each dot, the object before it and the path after it.
fn find<'a, 'j, T>(members: &'a Object<'j>, path: &str, take: &impl Fn(&'a Json<'j>) -> Option<T>) -> Option<T> {
    if let Some(found) = members.get(path).and_then(take) {
        return Some(found);
    }
    path.match_indices('.').find_map(|(dot, _)| {
        let inner = members.get(&path[..dot])?.as_object()?;
        find(inner, &path[dot + 1..], take)
    })
}

fn string<'a>(value: &'a Json<'_>) -> Option<&'a str> {
    let text = value.as_str()?.trim();
    (!text.is_empty()).then_some(text)
}
