//! The burn order and the boundaries, case by case (OpenMeter's burn-down cases among them).

use super::book::{Book, Draw, DueHold, Grant, Inconsistent, NEVER, Rollover, Step};
use uuid::Uuid;

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn grant(number: u128, amount: i64) -> Grant {
    Grant {
        id: id(number),
        priority: 0,
        effective_at: 0,
        expires_at: NEVER,
        created_at: number as i64,
        amount,
        remaining: amount,
        posted: true,
        rollover: None,
        rolled_from: None,
        changed: false,
    }
}

fn book(grants: Vec<Grant>, drawn: i128) -> Book {
    Book { grants, drawn, next_hold_expiry: NEVER, ..Book::default() }
}

fn settle(book: &mut Book, now: i64) {
    let mut next = 1000;
    book.settle(0, now, &mut || {
        next += 1;
        id(next)
    })
    .expect("a consistent book");
}

fn remaining(book: &Book) -> Vec<(u128, i64)> {
    book.grants.iter().map(|grant| (grant.id.as_u128(), grant.remaining)).collect()
}

#[test]
fn lower_priority_burns_first_whatever_its_expiry() {
    let mut book = book(vec![Grant { expires_at: 50, ..grant(1, 10) }, Grant { priority: -1, ..grant(2, 10) }], 15);
    settle(&mut book, 10);
    assert_eq!(remaining(&book), [(1, 5), (2, 0)]);
}

#[test]
fn at_equal_priority_the_sooner_to_expire_burns_first_then_the_older() {
    let mut book = book(vec![grant(1, 10), grant(2, 10), Grant { expires_at: 99, ..grant(3, 10) }], 25);
    settle(&mut book, 10);
    assert_eq!(remaining(&book), [(1, 0), (2, 5), (3, 0)]);
    assert_eq!(
        book.draws,
        [
            Draw { grant: id(3), from: 0, to: 10 },
            Draw { grant: id(1), from: 10, to: 20 },
            Draw { grant: id(2), from: 20, to: 25 }
        ]
    );
}

#[test]
fn what_remains_expires_at_its_time_and_not_a_moment_before() {
    let grants = vec![Grant { expires_at: 100, ..grant(1, 10) }, grant(2, 10)];
    let mut before = book(grants.clone(), 4);
    settle(&mut before, 99);
    assert_eq!((remaining(&before), before.steps.len()), (vec![(1, 6), (2, 10)], 0));
    let mut after = book(grants, 4);
    settle(&mut after, 100);
    assert_eq!(remaining(&after), [(1, 0), (2, 10)]);
    assert_eq!(after.steps, [Step::Expired { grant: id(1), amount: 6, at: 100 }]);
    assert_eq!(after.next_boundary(), None);
}

#[test]
fn a_grant_counts_from_when_it_is_effective() {
    let mut book = book(
        vec![grant(1, 5), Grant { posted: false, remaining: 0, effective_at: 50, expires_at: 80, ..grant(2, 7) }],
        5,
    );
    assert_eq!(book.next_boundary(), Some(50));
    settle(&mut book, 60);
    assert_eq!(remaining(&book), [(1, 0), (2, 7)]);
    settle(&mut book, 90);
    assert_eq!(
        book.steps,
        [
            Step::Posted { grant: id(2), amount: 7, at: 50, rolled_over: false },
            Step::Expired { grant: id(2), amount: 7, at: 80 }
        ]
    );
}

#[test]
fn a_rollover_carries_at_most_its_maximum_and_only_once() {
    let rollover = Some(Rollover { max: 3, until: 200 });
    let mut book = book(vec![Grant { expires_at: 100, rollover, ..grant(1, 10) }], 2);
    settle(&mut book, 150);
    assert_eq!(remaining(&book), [(1, 0), (1001, 3)]);
    assert_eq!(book.next_boundary(), Some(200));
    settle(&mut book, 250);
    let amounts: Vec<i64> = book
        .steps
        .iter()
        .map(|step| match step {
            Step::Expired { amount, .. } => -amount,
            Step::Posted { amount, .. } => *amount,
            _ => 0,
        })
        .collect();
    assert_eq!(amounts, [-8, 3, -3]);
}

#[test]
fn boundaries_are_taken_in_the_order_of_time() {
    let rollover = Some(Rollover { max: 10, until: 60 });
    let mut book = book(
        vec![
            Grant { expires_at: 40, rollover, ..grant(1, 10) },
            Grant { posted: false, remaining: 0, effective_at: 50, ..grant(2, 1) },
        ],
        0,
    );
    settle(&mut book, 1000);
    let times: Vec<i64> = book
        .steps
        .iter()
        .map(|step| match step {
            Step::Expired { at, .. } | Step::Posted { at, .. } => *at,
            _ => 0,
        })
        .collect();
    assert_eq!(times, [40, 40, 50, 60]);
}

#[test]
fn held_credits_do_not_expire_until_the_hold_does() {
    // 10 granted until 100, 6 of them held until 150.
    let mut book = book(vec![Grant { expires_at: 100, ..grant(1, 10) }], 6);
    book.due = vec![DueHold { id: id(9), amount: 6, expires_at: 150, drawn_to: 6 }];
    settle(&mut book, 150);
    assert_eq!(
        book.steps,
        [
            Step::Expired { grant: id(1), amount: 4, at: 100 },
            Step::HoldExpired { hold: id(9), amount: 6, at: 150 },
            Step::Returned { hold: Some(id(9)), draw: Draw { grant: id(1), from: 0, to: 6 } },
            Step::Expired { grant: id(1), amount: 6, at: 150 },
        ]
    );
}

#[test]
fn a_hold_returns_to_the_grants_it_was_drawn_from() {
    let mut book = book(vec![grant(1, 4), grant(2, 10)], 12);
    // The first 2 were charged, the next 8 held, the last 2 charged.
    book.due = vec![DueHold { id: id(9), amount: 8, expires_at: 50, drawn_to: 10 }];
    settle(&mut book, 50);
    assert_eq!(remaining(&book), [(1, 2), (2, 8)]);
}

#[test]
fn what_was_settled_before_returns_too() {
    let mut book = book(vec![Grant { remaining: 0, ..grant(1, 10) }, grant(2, 5)], 10);
    book.burned = 10;
    book.known = vec![Draw { grant: id(1), from: 0, to: 10 }];
    book.give_back(None, 7, 10).expect("known");
    assert_eq!(remaining(&book), [(1, 3), (2, 5)]);
    assert_eq!(book.give_back(None, 9, 11), Err(Inconsistent), "nothing lies under the last part");
}

#[test]
fn nothing_is_dated_before_the_newest_entry() {
    // The clock stepped back, or a boundary was stored too late.
    let mut book = book(vec![Grant { expires_at: 100, ..grant(1, 10) }], 0);
    book.settle(120, 130, &mut || id(0)).expect("consistent");
    assert_eq!(book.steps, [Step::Expired { grant: id(1), amount: 10, at: 120 }]);
}

#[test]
fn more_drawn_than_granted_is_never_settled_in_silence() {
    assert_eq!(book(vec![grant(1, 5)], 6).burn(), Err(Inconsistent));
}

/// Settling late gives what settling at every charge gives.
#[test]
fn late_and_early_settlement_agree() {
    let mut state = 42u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..2000 {
        let grants: Vec<Grant> = (1..=1 + random(6))
            .map(|number| Grant {
                priority: random(3) as i32,
                expires_at: if random(2) == 0 { NEVER } else { 1000 + random(3) as i64 },
                ..grant(number.into(), 1 + random(20) as i64)
            })
            .collect();
        let total: i64 = grants.iter().map(|grant| grant.amount).sum();
        let (mut late, mut early) = (book(grants.clone(), 0), book(grants, 0));
        for _ in 0..random(8) {
            let free = i128::from(total) - early.drawn;
            if free > 0 {
                early.drawn += 1 + i128::from(random(free as u64));
                early.burn().expect("enough");
            }
        }
        late.drawn = early.drawn;
        settle(&mut late, 0);
        assert_eq!(remaining(&late), remaining(&early));
    }
}
