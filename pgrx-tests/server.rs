//! How pgrx's tests start their server.

/// Called before each test.
pub fn setup(_options: Vec<&str>) {}

/// The lines of its postgresql.conf. scripts/test.sh makes the master key and names it.
pub fn postgresql_conf_options() -> Vec<&'static str> {
    let mut lines = vec!["shared_preload_libraries = 'pg_tenancy'", "fsync = off"];
    if let Ok(file) = std::env::var("PGT_MASTER_KEY_FILE") {
        lines.push(Box::leak(format!("tenancy.master_key_file = '{file}'").into_boxed_str()));
    }
    lines
}
