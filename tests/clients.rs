//! The pages about clients: their code, run as it stands, where the client is to be had.

mod common;

use common::{Token, cluster};
use std::fs;
use std::process::Command;

fn blocks(page: &str, language: &str) -> String {
    let file = format!("{}/docs/how-to/{page}.md", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&file).unwrap();
    let blocks: Vec<&str> =
        text.split(&format!("```{language}\n")).skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    assert!(!blocks.is_empty(), "{page}");
    blocks.join("\n")
}

/// What a product would do with the page's code: two tenants, an error, a savepoint, a charge that fails with its work.
const SQLALCHEMY: &str = r#"
acme, globex = os.environ["ACME"], os.environ["GLOBEX"]
grade(acme, "Engines")
assert titles(acme) == ["Engines"], titles(acme)
assert titles(globex) == [], titles(globex)
try:
    grade(globex, "Looms")
    raise SystemExit("nobody pays for globex")
except DBAPIError as error:
    assert http_status(error) in (402, 403), error
    assert globex not in str(error), "the token is in the error"
assert titles(globex) == [], "the work went with the charge"
with Session(info={"token": acme}) as session, session.begin():
    with session.begin_nested():
        session.execute(text("INSERT INTO essays (title) VALUES ('Kept')"))
    nested = session.begin_nested()
    session.execute(text("INSERT INTO essays (title) VALUES ('Undone')"))
    nested.rollback()
    assert session.scalar(text("SELECT tenancy.user_id()")) == "ada"
assert titles(acme) == ["Engines", "Kept"], titles(acme)
try:
    with Session() as session, session.begin():
        session.execute(text("SELECT 1"))
    raise SystemExit("a session without a token ran a statement")
except KeyError:
    pass
try:
    titles("not a token")
    raise SystemExit("a token of nobody was taken")
except DBAPIError as error:
    assert http_status(error) == 401, error
with engine.connect() as connection:
    assert connection.scalar(text("SELECT count(*) FROM essays")) == 0, "the pooled connection kept an identity"
print("done")
"#;

#[test]
fn sqlalchemy_runs_as_the_page_says() {
    let Some(python) = std::env::var_os("PGT_PYTHON") else {
        crate::common::say!("skipped: PGT_PYTHON names no Python with SQLAlchemy (scripts/peers.sh)");
        return;
    };
    let database = cluster().database();
    database
        .superuser()
        .batch_execute(
            "CREATE TABLE public.essays (title text); SELECT tenancy.protect_table('public.essays');
             GRANT SELECT, INSERT ON public.essays TO app;
             SELECT tenancy.register_user('ada'), tenancy.register_user('hank'), tenancy.register_organization('acme', 'Acme'), tenancy.register_organization('globex', 'Globex');
             SELECT tenancy.set_subscription('acme', 'teams', 'active', 1), tenancy.set_membership('ada', 'acme', 'member');
             SELECT tenancy.assign_seat('acme', 'ada'), tenancy.grant_credits(10, org_id => 'acme')",
        )
        .unwrap();
    let folder = cluster().folder().display().to_string();
    let output = Command::new(python)
        .arg("-c")
        .arg(blocks("use-sqlalchemy", "python") + SQLALCHEMY)
        .env("DATABASE_URL", format!("postgresql+psycopg://app@/{}?host={folder}", database.name))
        .env("ACME", Token::for_member("ada", "acme").sign())
        .env("GLOBEX", Token::for_member("hank", "globex").sign())
        .output()
        .expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "done");
    let balance = "SELECT (balance)::text FROM tenancy.credit_pools WHERE tenant_id = 'acme'";
    assert_eq!(database.superuser().query_one(balance, &[]).unwrap().get::<_, String>(0), "8.000000");
}
