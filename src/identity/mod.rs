//! Who is asking.

#[allow(dead_code, unused_imports)] // until the functions over it are there
pub mod jose;
#[allow(dead_code, unused_imports)] // until the functions over it are there
pub mod seal;
