//! Installing.
#[test]
fn it() {}
