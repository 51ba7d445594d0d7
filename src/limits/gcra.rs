//! The generic cell rate algorithm (ITU-T I.371), in whole numbers: `count` requests in each `period`, at most
//! `burst` at once. In any stretch of time t no more than burst + count × t / period are admitted.
//!
//! A cell keeps one number, the theoretical arrival time: when the bucket would be full again. Its fraction of a
//! microsecond is kept as a true fraction, so that no limit drifts.

/// How far ahead of now a cell may be filled, in microseconds: 146,000 years. A burst that would take longer to come
/// back admits as many as come back in that time.
const FURTHEST: i64 = i64::MAX / 2;

/// A limit in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Requests in a period; at least 1.
    pub count: u32,
    /// The period in microseconds; at least 1.
    pub period: i64,
    /// Requests at once; at least 1.
    pub burst: u32,
}

/// When the bucket of a cell is full again: `micros + part / per` on the limiter's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Arrival {
    /// Whole microseconds.
    pub micros: i64,
    /// Numerator of the fraction, less than `per`.
    pub part: u32,
    /// Its denominator: the `count` of the rule that wrote it.
    pub per: u32,
}

/// What a rule says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may go on.
    pub allowed: bool,
    /// Requests that may follow at once.
    pub remaining: u32,
    /// Microseconds until the same request would be allowed, rounded up and never above 146,000 years; 0 when it is.
    pub retry_after: i64,
    /// What the cell is to hold after it, where it is allowed.
    pub arrival: Arrival,
}

impl Rule {
    /// Judges a request of `cost` at `now`; `cell` is what the cell holds, none for a caller not seen (lately).
    /// A cost above the burst is never allowed: callers refuse it before.
    pub fn decide(&self, cell: Option<Arrival>, now: i64, cost: u32) -> Decision {
        let (count, period) = (i128::from(self.count), i128::from(self.period));
        let now = i128::from(now) * count;
        // Further ahead than a cell can say, nothing is admitted: it could not be remembered.
        let tolerance = (i128::from(self.burst) * period).min(i128::from(FURTHEST) * count);
        // A cell written under an older, wider rule counts as one emptied under this rule.
        let before = cell.map_or(now, |cell| cell.scaled(count)).clamp(now, now + tolerance);
        let after = before + i128::from(cost) * period;
        let excess = after - now - tolerance;
        let allowed = excess <= 0;
        let spent = if allowed { after } else { before } - now;
        Decision {
            allowed,
            remaining: ((tolerance - spent) / period) as u32,
            retry_after: if allowed { 0 } else { divide_up(excess, count).min(i128::from(FURTHEST)) as i64 },
            arrival: Arrival::from_scaled(if allowed { after } else { before }, self.count),
        }
    }
}

impl Arrival {
    /// Whether the bucket is full at `now`: forgetting the cell changes nothing.
    pub fn is_over(&self, now: i64) -> bool {
        self.micros < now || (self.micros == now && self.part == 0)
    }

    /// In units of 1/`count` microseconds, rounded up.
    fn scaled(&self, count: i128) -> i128 {
        let (part, per) = (i128::from(self.part), i128::from(self.per.max(1)));
        i128::from(self.micros) * count + divide_up(part * count, per)
    }

    fn from_scaled(value: i128, count: u32) -> Self {
        let per = i128::from(count);
        // At most FURTHEST ahead of a clock that is far below the rest.
        Self {
            micros: i64::try_from(value.div_euclid(per)).unwrap_or(i64::MAX),
            part: value.rem_euclid(per) as u32,
            per: count,
        }
    }
}

fn divide_up(value: i128, by: i128) -> i128 {
    (value + by - 1).div_euclid(by)
}

#[cfg(test)]
mod tests {
    use super::{Arrival, Rule};

    const HOUR: i64 = 3_600_000_000;

    fn admitted(rule: Rule, times: impl Iterator<Item = i64>) -> u64 {
        let mut cell: Option<Arrival> = None;
        let mut admitted = 0;
        for now in times {
            let decision = rule.decide(cell, now, 1);
            if decision.allowed {
                admitted += 1;
                cell = Some(decision.arrival);
            }
        }
        admitted
    }

    #[test]
    fn a_burst_then_the_rate_exactly() {
        let rule = Rule { count: 60, period: HOUR, burst: 60 };
        let mut cell = None;
        for left in (0..60).rev() {
            let decision = rule.decide(cell, 0, 1);
            assert!(decision.allowed && decision.remaining == left && decision.retry_after == 0);
            cell = Some(decision.arrival);
        }
        let denied = rule.decide(cell, 0, 1);
        assert_eq!((denied.allowed, denied.remaining, denied.retry_after), (false, 0, 60_000_000));
        assert_eq!(denied.arrival, cell.unwrap(), "a denial changes nothing");
        assert!(!rule.decide(cell, 59_999_999, 1).allowed);
        assert!(rule.decide(cell, 60_000_000, 1).allowed, "retry_after is exact");
        assert!(rule.decide(cell, HOUR, 60).allowed, "after a period everything is back");
        assert_eq!(rule.decide(cell, 0, 60).retry_after, HOUR);
    }

    #[test]
    fn a_rate_that_does_not_divide_does_not_drift() {
        for count in [3, 7, 11, 999, 1_000_003] {
            let rule = Rule { count, period: 1_000_000, burst: 1 };
            let seconds = 5;
            let step = if count > 1000 { 1 } else { 100 };
            let got = admitted(rule, (0..=seconds * 1_000_000).step_by(step));
            let most = 1 + u64::from(count) * seconds as u64;
            assert!(got <= most, "{count}: {got} of {most}");
            if count <= 1000 {
                // Asked every 100 µs, a request waits up to 100 µs for its turn; the bucket of one cannot make up for it.
                assert!(got >= most * 9 / 10, "{count}: {got} of {most}");
            }
        }
        let rule = Rule { count: 7, period: 1_000_000, burst: 7 };
        assert_eq!(admitted(rule, 0..=20_000_000), 7 + 7 * 20);
    }

    #[test]
    fn a_changed_rule_takes_over_without_forgiving() {
        let wide = Rule { count: 10, period: HOUR, burst: 10 };
        let mut cell = None;
        for _ in 0..10 {
            cell = Some(wide.decide(cell, 0, 1).arrival);
        }
        let narrow = Rule { count: 3, period: 1_000_000, burst: 3 };
        let denied = narrow.decide(cell, 0, 1);
        assert!(!denied.allowed, "a blocked caller is blocked under the new rule too");
        assert_eq!(denied.retry_after, 333_334, "and waits no longer than the new rule says");
    }

    #[test]
    fn a_burst_beyond_all_time_is_not_forgotten() {
        let day = 24 * HOUR;
        let rule = Rule { count: 1, period: day, burst: i32::MAX as u32 };
        let most = (super::FURTHEST / day) as u32;
        let now = 800_000_000_000_000_000;
        let first = rule.decide(None, now, most);
        assert!(first.allowed && first.remaining == 0, "as many as come back");
        let mut cell = Some(first.arrival);
        for _ in 0..3 {
            let next = rule.decide(cell, now, 1);
            assert!(!next.allowed && next.retry_after <= day, "what was taken is remembered");
            cell = Some(next.arrival);
        }
        assert!(rule.decide(cell, now + day, 1).allowed, "and comes back at the rate");
        let never = Rule { period: 366 * day, ..rule }.decide(None, now, i32::MAX as u32);
        assert_eq!((never.allowed, never.retry_after), (false, super::FURTHEST), "a wait too long to say");
    }

    #[test]
    fn the_largest_rule_does_not_overflow() {
        let rule = Rule { count: i32::MAX as u32, period: 366 * 24 * HOUR, burst: i32::MAX as u32 };
        let now = i64::MAX / 4;
        let decision = rule.decide(None, now, i32::MAX as u32);
        assert!(decision.allowed && decision.remaining == 0);
        let denied = rule.decide(Some(decision.arrival), now, i32::MAX as u32);
        assert_eq!((denied.allowed, denied.retry_after), (false, rule.period));
        assert!(!decision.arrival.is_over(now) && decision.arrival.is_over(now + rule.period));
    }
}
