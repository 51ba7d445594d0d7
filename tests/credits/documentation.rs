//! docs/how-to/charge-credits.md, run as it stands by whom the page says.

use crate::common::{Token, cluster, psql, sql_blocks};

#[test]
fn the_how_to_works_as_it_stands() {
    let blocks = sql_blocks("docs/how-to/charge-credits.md");
    let database = cluster().database();
    let token = Token::for_member("user_ada", "org_acme").sign();
    // What the blocks of one role say to each other, they say by psql's variables: neighbours run in one session.
    let role = |block: &str| {
        if block.starts_with("BEGIN") {
            "app"
        } else if ["deduct_credits", "hold_credits", "refund_credits"].iter().any(|call| block.contains(call)) {
            "svc"
        } else {
            "ops"
        }
    };
    let mut shown = String::new();
    for group in blocks.chunk_by(|one, next| role(one) == role(next)) {
        let (answers, said) = psql(&database, role(&group[0]), &[("token", &token)], &group.concat());
        assert_eq!(said, "");
        shown += &answers;
    }
    for line in [
        "2600.000000",
        "charged|2.500000|2597.500000",
        "charged|t|2597.500000",
        "t",
        "member",
        "12.000000|2565.500000|0.000000",
        "refunded|-4.000000",
        "charged|1.000000",
        "insufficient_credits|",
        "org_acme|5|31.500000",
        "2531.500000|31.500000",
        "0",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} is not in:\n{shown}");
    }
}
