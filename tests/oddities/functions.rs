//! Every function of the catalog, as every role that may call it. An answer or a refusal with an SQLSTATE is right; a
//! crash, a panic, an internal error or a mistake in the function's own SQL is not.

use crate::common::copies::{lived_in, rows};
use crate::common::{Cluster, Database, Options, Token, in_parallel};
use postgres::{Client, Error};

/// What a type's arguments are in each of the attempts.
const ATTEMPTS: [&str; 7] = ["null", "empty", "smallest", "largest", "not a number", "huge", "real"];

fn argument(of_type: &str, attempt: &str, position: usize) -> String {
    let text = |value: &str| format!("'{value}'::{of_type}");
    match (of_type, attempt) {
        (_, "null") => format!("NULL::{}", if of_type == "anyelement" { "text" } else { of_type }),
        ("anyelement", _) => "'any'::text".into(),
        ("text", "empty") => "''::text".into(),
        ("text", "smallest") => "E' \\t\\n'::text".into(),
        ("text", "largest") => "E'\\u200B::%s$$''; --\\\\x00 ﷽'::text".into(),
        ("text", "not a number") => "'NaN'::text".into(),
        ("text", "huge") => "repeat('a.b-', 500000)".into(),
        ("text", _) => ["'ada'", "'org_acme'", "'pages'", "'month'"][position % 4].into(),
        ("name", "empty" | "smallest") => "''::name".into(),
        ("name", "huge" | "largest") => "repeat('n', 63)::name".into(),
        ("name", _) => "'tenant_id'::name".into(),
        ("jsonb", "empty") => "'{}'::jsonb".into(),
        ("jsonb", "smallest") => "'[]'::jsonb".into(),
        ("jsonb", "largest") => "(repeat('[', 4000) || repeat(']', 4000))::jsonb".into(),
        ("jsonb", "not a number") => "'null'::jsonb".into(),
        ("jsonb", "huge") => "jsonb_build_object('user_id', repeat('x', 3000000), 'n', 1e300::numeric)".into(),
        ("jsonb", _) => "'{\"user_id\": \"ada\", \"org_id\": \"org_acme\", \"data\": {\"quantity\": 1}}'::jsonb".into(),
        ("regclass", "empty" | "smallest") => "0::regclass".into(),
        ("regclass", "largest") => "4294967295::oid::regclass".into(),
        ("regclass", "not a number") => "'pg_catalog.pg_class'::regclass".into(),
        ("regclass", "huge") => "'tenancy.credit_transactions'::regclass".into(),
        ("regclass", _) => "'public.essays'::regclass".into(),
        ("regrole", "real") => "'app'::regrole".into(),
        ("regrole" | "oid", "largest") => format!("4294967295::{of_type}"),
        ("regrole" | "oid", _) => format!("0::oid::{of_type}"),
        ("uuid", "largest") => text("ffffffff-ffff-ffff-ffff-ffffffffffff"),
        ("uuid", "real") => "(SELECT id FROM public.known LIMIT 1)".into(),
        ("uuid", _) => text("00000000-0000-0000-0000-000000000000"),
        ("numeric", "largest") => "1e1000::numeric".into(),
        ("numeric", "huge") => "(repeat('9', 100000) || '.000000000001')::numeric".into(),
        ("numeric", "smallest") => "-0.0000001::numeric".into(),
        ("numeric", "not a number") => "'NaN'::numeric".into(),
        ("numeric", "real") => "1::numeric".into(),
        ("integer", "largest" | "huge") => "2147483647".into(),
        ("integer", "smallest") => "(-2147483648)::integer".into(),
        ("bigint", "largest" | "huge") => "9223372036854775807".into(),
        ("bigint", "smallest") => "(-9223372036854775808)::bigint".into(),
        ("integer" | "bigint", "real") => format!("1::{of_type}"),
        ("numeric" | "integer" | "bigint", _) => format!("0::{of_type}"),
        ("double precision", "largest") => text("Infinity"),
        ("double precision", "smallest") => text("-Infinity"),
        ("double precision", "not a number") => text("NaN"),
        ("double precision", _) => text("1e308"),
        ("boolean", attempt) => (attempt.len() % 2 == 0).to_string(),
        ("timestamp with time zone" | "date", "largest" | "huge") => text("infinity"),
        ("timestamp with time zone" | "date", "smallest") => text("-infinity"),
        ("timestamp with time zone" | "date", "empty") => text("4713-01-01 BC"),
        ("timestamp with time zone" | "date", _) => format!("now()::{of_type}"),
        ("interval", "largest" | "huge") => text("178000000 years"),
        ("interval", "smallest") => text("-178000000 years"),
        ("interval", "empty" | "not a number") => text("0"),
        ("interval", _) => text("1 hour"),
        ("bytea", "huge") => "convert_to(repeat('b', 2000000), 'UTF8')".into(),
        ("bytea", "empty") => text(""),
        ("bytea", _) => text("\\x00ff"),
        (array, "empty") => format!("'{{}}'::{array}"),
        (array, "smallest") => format!("'{{NULL}}'::{array}"),
        (array, "huge") => format!("array_fill(NULL::{}, ARRAY[100000])", array.trim_end_matches("[]")),
        (array, _) => format!("'{{{{NULL}}}}'::{array}"),
    }
}

struct Function {
    name: String,
    is_procedure: bool,
    is_variadic: bool,
    types: Vec<String>,
}

fn functions(client: &mut Client) -> Vec<Function> {
    let all = "SELECT p.proname::text, p.prokind = 'p', p.provariadic <> 0,
                      ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS a (t, n) ORDER BY n)
                 FROM pg_proc AS p
                WHERE p.pronamespace = 'tenancy'::regnamespace AND has_function_privilege(p.oid, 'EXECUTE')
                  AND (NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
                       OR NOT EXISTS (SELECT FROM aclexplode(p.proacl) AS a WHERE a.grantee <> p.proowner))
                ORDER BY 1, p.oid";
    let functions = client.query(all, &[]).unwrap();
    functions
        .iter()
        .map(|row| Function { name: row.get(0), is_procedure: row.get(1), is_variadic: row.get(2), types: row.get(3) })
        .collect()
}

/// The first attempts take all arguments of one kind, the later ones mix them.
fn mixed(function: &Function, attempt: usize) -> String {
    call(function, |position| match attempt / ATTEMPTS.len() {
        0 => attempt,
        turn => (attempt + position * turn) % ATTEMPTS.len(),
    })
}

/// Every argument alone in each of the ways in which it can be wrong, among real ones.
fn wrong_one_by_one(function: &Function) -> Vec<String> {
    let real = ATTEMPTS.len() - 1;
    let wrong = (0..function.types.len()).flat_map(|place| (0..real).map(move |kind| (place, kind)));
    wrong.map(|(place, kind)| call(function, |position| if position == place { kind } else { real })).collect()
}

fn call(function: &Function, kind: impl Fn(usize) -> usize) -> String {
    let arguments: Vec<String> = function
        .types
        .iter()
        .enumerate()
        .map(|(position, of_type)| {
            let variadic = if function.is_variadic && position + 1 == function.types.len() { "VARIADIC " } else { "" };
            format!("{variadic}{}", argument(of_type, ATTEMPTS[kind(position)], position))
        })
        .collect();
    let verb = if function.is_procedure { "CALL" } else { "SELECT * FROM" };
    format!("{verb} tenancy.{}({})", function.name, arguments.join(", "))
}

/// What no argument may bring about: an internal error, or names that the function's own SQL got wrong. Functions whose
/// names begin with an underscore may be given SQL of the caller's own; those that only a superuser may call are
/// called by ours alone, and need not be polite: but the session must survive.
fn is_a_bug(error: &Error, function: &Function, role: &str) -> bool {
    let Some(said) = error.as_db_error() else { return true };
    let code = said.code().code();
    let internal = function.name.starts_with('_');
    (code.starts_with("XX") && role != "postgres")
        || (["42702", "42703", "42725", "42883", "42804", "42601"].contains(&code) && !internal)
}

/// Every function this role may call (the superuser: those that nobody else may), with all attempts; the bugs.
fn try_all(database: &Database, role: &str, token: Option<&str>, attempts: usize) -> (usize, Vec<String>) {
    let mut client = database.connect(role);
    let (mut calls, mut bugs) = (0, Vec::new());
    for function in functions(&mut client) {
        for attempt in 0..if function.types.is_empty() { 1 } else { attempts } {
            let statement = mixed(&function, attempt);
            client.batch_execute("BEGIN").unwrap();
            if let Some(token) = token {
                client.query("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
            }
            calls += 1;
            if let Err(error) = client.batch_execute(&statement) {
                if is_a_bug(&error, &function, role) {
                    let statement: String = statement.chars().take(300).collect();
                    bugs.push(format!("{role}: {statement}: {error:?}"));
                }
                if client.is_closed() {
                    client = database.connect(role);
                    continue;
                }
            }
            client.batch_execute("ROLLBACK").unwrap();
        }
    }
    (calls, bugs)
}

/// What Postgres itself says of an argument before or beside ours: that a role may not use a table, that a relation is of
/// the wrong kind for a statement, or that a procedure which commits was called within a transaction.
const POSTGRES_OWN: [&str; 3] = ["permission denied for ", "invalid transaction termination", "must be owner of "];

/// An error of ours says why as a program reads it, and what to do.
fn is_impolite(error: &Error) -> bool {
    let Some(said) = error.as_db_error() else { return true };
    let reason = said.detail().and_then(|detail| serde_json::from_str::<serde_json::Value>(detail).ok());
    let is_ours = reason.is_some_and(|detail| detail["reason"].is_string()) && said.hint().is_some();
    let function_denied = said.message().starts_with("permission denied for function");
    !is_ours && (function_denied || !POSTGRES_OWN.iter().any(|own| said.message().starts_with(own)))
}

#[test]
fn every_argument_that_is_refused_is_refused_with_a_reason() {
    let cluster = Cluster::start(Options::default());
    let database = lived_in(&cluster);
    database
        .superuser()
        .batch_execute(
            "CREATE TABLE public.known AS SELECT id FROM tenancy.credit_transactions LIMIT 1; GRANT SELECT ON public.known TO PUBLIC",
        )
        .unwrap();
    let token = Token::for_member("ada", "org_acme").sign();
    let roles = [("app", Some(token.as_str())), ("svc", None), ("ops", None)];
    let told = in_parallel(roles.len(), |index| {
        let (role, token) = roles[index];
        let mut client = database.connect(role);
        let (mut refused, mut impolite) = (0, Vec::new());
        for function in functions(&mut client).iter().filter(|function| !function.name.starts_with('_')) {
            for statement in wrong_one_by_one(function) {
                client.batch_execute("BEGIN").unwrap();
                if let Some(token) = token {
                    client.query("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
                }
                if let Err(error) = client.batch_execute(&statement) {
                    refused += 1;
                    if is_impolite(&error) {
                        impolite
                            .push(format!("{role}: {}: {error:?}", statement.chars().take(300).collect::<String>()));
                    }
                }
                client.batch_execute("ROLLBACK").unwrap();
            }
        }
        (refused, impolite)
    });
    let impolite: Vec<&String> = told.iter().flat_map(|(_, impolite)| impolite).collect();
    assert!(impolite.is_empty(), "{} without a reason or a hint: {impolite:#?}", impolite.len());
    let refused: usize = told.iter().map(|(refused, _)| refused).sum();
    assert!(refused > 2000, "only {refused} refusals");
}

#[test]
fn every_function_bears_every_argument() {
    let settings = vec![("log_error_verbosity", "verbose".into()), ("statement_timeout", "20s".into())];
    let cluster = Cluster::start(Options { settings, ..Options::default() });
    let database = lived_in(&cluster);
    let mut superuser = database.superuser();
    superuser
        .batch_execute(
            "CREATE TABLE public.known AS SELECT id FROM tenancy.credit_transactions LIMIT 1; GRANT SELECT ON public.known TO PUBLIC",
        )
        .unwrap();
    let before = rows(&mut superuser);
    let token = Token::for_member("ada", "org_acme").sign();
    let rounds: usize = std::env::var("PGT_ROUNDS").map_or(1, |rounds| rounds.parse().expect("PGT_ROUNDS is a number"));
    let attempts = ATTEMPTS.len() * (1 + rounds.min(6));
    let token = Some(token.as_str());
    let roles = [("app", token), ("app", None), ("svc", token), ("ops", None), ("met", None), ("postgres", None)];
    let told = in_parallel(roles.len(), |index| try_all(&database, roles[index].0, roles[index].1, attempts));
    let (calls, bugs) = told.into_iter().fold((0, Vec::new()), |(calls, mut bugs), (more, found)| {
        bugs.extend(found);
        (calls + more, bugs)
    });
    assert!(bugs.is_empty(), "{} bugs: {bugs:#?}", bugs.len());
    assert!(calls > 5000, "only {calls} calls");
    assert_eq!(rows(&mut superuser), before, "everything was rolled back");
    assert!(!cluster.log().contains("terminated by signal"), "a backend died: {}", cluster.log());
}
