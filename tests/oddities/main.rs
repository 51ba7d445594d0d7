//! What nobody would call, called: every function with NULLs, empty, odd and huge arguments, and the statements that
//! sqlsmith makes up.

#[path = "../common/mod.rs"]
mod common;
mod functions;
mod sqlsmith;
