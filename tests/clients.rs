//! The pages about clients: their code, run as it stands, where the client is to be had.

mod common;

use common::{Database, Token, blocks, cluster};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// The same in Prisma, but for savepoints, which it does not have.
const PRISMA: &str = r#"
const acme = process.env.ACME!, globex = process.env.GLOBEX!;

function expect(wanted: unknown, got: unknown) {
  if (JSON.stringify(wanted) !== JSON.stringify(got)) throw new Error(`${JSON.stringify(got)} is not ${JSON.stringify(wanted)}`);
}

async function refused(work: () => Promise<unknown>): Promise<number> {
  try {
    await work();
  } catch (error) {
    return httpStatus(error);
  }
  throw new Error("it was not refused");
}

expect("8", await grade(acme, "Engines"));
expect(["Engines"], await titles(acme));
expect([], await titles(globex));
expect(403, await refused(() => grade(globex, "Looms")));
expect([], await titles(globex));
expect(401, await refused(() => titles("not a token")));
const [, essays] = await prisma.$transaction([prisma.$queryRaw`SELECT tenancy.authenticate(${acme})`, prisma.essay.findMany()]);
expect(["acme"], essays.map((essay) => essay.tenantId));
expect(0, await prisma.essay.count());
expect(500, await refused(() => prisma.essay.create({ data: { title: "nobody's" } })));
await prisma.$disconnect();
console.log("done");
"#;

const RAILS_BEFORE: &str = r#"
require "logger"
require "action_controller"
require "active_record"
require "pg"
ActiveRecord::Base.establish_connection(adapter: "postgresql", host: ENV.fetch("PGHOST"), username: "app", database: ENV.fetch("PGDATABASE"))
"#;

/// Requests, as a web server would hand them to the controller.
const RAILS: &str = r##"
def request(action, token, parameters = {})
  headers = token ? { "HTTP_AUTHORIZATION" => "Bearer #{token}" } : {}
  method = parameters.empty? ? "GET" : "POST"
  environment = Rack::MockRequest.env_for("/essays", { method: method, params: parameters }.merge(headers))
  status, _, body = EssaysController.action(action).call(environment)
  text = +""
  body.each { |part| text << part }
  [status, text]
end

def expect(wanted, got)
  raise "#{got.inspect} is not #{wanted.inspect}" unless got == wanted
end

acme, globex = ENV.fetch("ACME"), ENV.fetch("GLOBEX")
expect 201, request(:create, acme, title: "Engines")[0]
expect [200, '["Engines"]'], request(:index, acme)
expect [200, "[]"], request(:index, globex)
expect 403, request(:create, globex, title: "Looms")[0]
expect [200, "[]"], request(:index, globex)
expect 401, request(:index, nil)[0]
expect 401, request(:index, "not a token")[0]
ActiveRecord::Base.transaction do
  bind = ActiveRecord::Relation::QueryAttribute.new("token", acme, ActiveRecord::Type::String.new)
  Essay.connection.exec_query("SELECT tenancy.authenticate($1)", "Authenticate", [bind])
  Essay.transaction(requires_new: true) { Essay.create!(title: "Kept") }
  Essay.transaction(requires_new: true) { Essay.create!(title: "Undone"); raise ActiveRecord::Rollback }
  expect %w[Engines Kept], Essay.order(:id).pluck(:title)
end
expect 0, Essay.count
begin
  Essay.create!(title: "nobody's")
  raise "a row of nobody"
rescue ActiveRecord::StatementInvalid
  puts "done"
end
"##;

/// Two tenants with a table of essays, of which one may spend ten credits.
fn school() -> Database<'static> {
    let database = cluster().database();
    database
        .superuser()
        .batch_execute(
            "CREATE TABLE public.essays (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text);
             SELECT tenancy.protect_table('public.essays');
             GRANT SELECT, INSERT ON public.essays TO app;
             SELECT tenancy.register_user('ada'), tenancy.register_user('hank'), tenancy.register_organization('acme', 'Acme'), tenancy.register_organization('globex', 'Globex');
             SELECT tenancy.set_subscription('acme', 'teams', 'active', 1), tenancy.set_membership('ada', 'acme', 'member');
             SELECT tenancy.assign_seat('acme', 'ada'), tenancy.grant_credits(10, org_id => 'acme')",
        )
        .unwrap();
    database
}

/// Runs a client's program, which says "done" at its end, and looks whether one charge of two credits was made.
fn run(database: &Database, command: &mut Command) {
    let output = command
        .env("ACME", Token::for_member("ada", "acme").sign())
        .env("GLOBEX", Token::for_member("hank", "globex").sign())
        .output()
        .expect("the client starts");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    assert!(output.status.success(), "{}\n{}", said(&output.stdout), said(&output.stderr));
    assert_eq!(said(&output.stdout), "done");
    let balance = "SELECT (balance)::text FROM tenancy.credit_pools WHERE tenant_id = 'acme'";
    assert_eq!(database.superuser().query_one(balance, &[]).unwrap().get::<_, String>(0), "8.000000");
}

fn page(name: &str, language: &str) -> String {
    blocks(&format!("docs/how-to/{name}.md"), language).join("\n")
}

#[test]
fn sqlalchemy_runs_as_the_page_says() {
    let Some(python) = std::env::var_os("PGT_PYTHON") else {
        crate::common::say!("skipped: PGT_PYTHON names no Python with SQLAlchemy (scripts/peers.sh)");
        return;
    };
    let database = school();
    let url = format!("postgresql+psycopg://app@/{}?host={}", database.name, cluster().folder().display());
    let program = page("use-sqlalchemy", "python") + SQLALCHEMY;
    run(&database, Command::new(python).arg("-c").arg(program).env("DATABASE_URL", url));
}

#[test]
fn prisma_runs_as_the_page_says() {
    let Some(modules) = std::env::var_os("PGT_PRISMA_MODULES").map(PathBuf::from) else {
        crate::common::say!("skipped: PGT_PRISMA_MODULES names no folder with Prisma (scripts/peers.sh)");
        return;
    };
    let database = school();
    let folder = cluster().folder().join("prisma");
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink(&modules, folder.join("node_modules")).unwrap();
    fs::write(folder.join("package.json"), r#"{"type": "module"}"#).unwrap();
    fs::write(folder.join("schema.prisma"), page("use-prisma", "prisma")).unwrap();
    fs::write(folder.join("app.ts"), page("use-prisma", "ts") + PRISMA).unwrap();
    // `generate` needs no engine and looks for one: it must not be fetched.
    let output = Command::new(modules.join(".bin/prisma"))
        .args(["generate", "--schema", "schema.prisma"])
        .current_dir(&folder)
        .env("PRISMA_SCHEMA_ENGINE_BINARY", "/bin/true")
        .env("CHECKPOINT_DISABLE", "1")
        .output()
        .expect("prisma starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The client's own way of importing node's modules breaks under jiti's.
    run(
        &database,
        Command::new(modules.join(".bin/jiti"))
            .arg("app.ts")
            .current_dir(&folder)
            .env("JITI_INTEROP_DEFAULT", "false")
            .env(
                "DATABASE_URL",
                format!("postgresql://app@localhost/{}?host={}", database.name, socket_folder().display()),
            ),
    );
}

#[test]
fn rails_runs_as_the_page_says() {
    let Some(ruby) = std::env::var_os("PGT_RUBY") else {
        crate::common::say!("skipped: PGT_RUBY names no Ruby with Rails (scripts/peers.sh)");
        return;
    };
    let database = school();
    let program = [RAILS_BEFORE, &page("use-rails", "ruby"), RAILS].concat();
    run(
        &database,
        Command::new(ruby).arg("-e").arg(program).env("PGHOST", socket_folder()).env("PGDATABASE", &database.name),
    );
}

fn socket_folder() -> &'static Path {
    cluster().folder()
}
