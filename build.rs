//! Keeps the sections pgrx describes the SQL objects in: the linker would drop them as unused.
//! cargo-pgrx does the same through RUSTFLAGS, at the price of a second build of every dependency.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,--no-gc-sections");
}
