//! Limits as the original policy file writes them (contract H): `60/hour`, `10000/day`, `unlimited`.

/// What a policy string says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// No limit.
    Unlimited,
    /// So many in each period of so many seconds.
    Rate { count: u32, seconds: u32 },
}

/// Why a policy string was refused; the texts are the original's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// No slash, or no whole number before it.
    Format(String),
    /// Not one of hour, day, week, month.
    Period(String),
}

impl Invalid {
    /// The stable name, for DETAIL's `"reason"`.
    pub fn reason(&self) -> &'static str {
        match self {
            Invalid::Format(_) => "invalid_rate_limit",
            Invalid::Period(_) => "invalid_rate_limit_period",
        }
    }
}

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shorten = |text: &str| text.chars().take(60).collect::<String>();
        match self {
            Invalid::Format(text) => write!(f, "Invalid rate limit format: {}", shorten(text)),
            Invalid::Period(text) => write!(f, "Invalid rate limit period: {}", shorten(text)),
        }
    }
}

/// Reads a policy string. Units as in the contract: hour, day, week, month (30 days); there is no minute. A count of
/// zero or below, which the original took and never allowed anything with, is refused.
pub fn parse(text: &str) -> Result<Limit, Invalid> {
    if text == "unlimited" {
        return Ok(Limit::Unlimited);
    }
    let format = || Invalid::Format(text.to_owned());
    let (count, unit) = text.split_once('/').ok_or_else(format)?;
    let seconds = match unit {
        "hour" => 3_600,
        "day" => 86_400,
        "week" => 604_800,
        "month" => 2_592_000,
        other => return Err(Invalid::Period(other.to_owned())),
    };
    let count: u32 = count.trim().parse().map_err(|_| format())?;
    if count == 0 || count > i32::MAX as u32 {
        return Err(format());
    }
    Ok(Limit::Rate { count, seconds })
}

#[cfg(test)]
mod tests {
    use super::{Invalid, Limit, parse};

    #[test]
    fn the_original_file_is_read() {
        for (text, count, seconds) in
            [("10000/day", 10_000, 86_400), ("60/hour", 60, 3_600), ("1/week", 1, 604_800), ("5/month", 5, 2_592_000)]
        {
            assert_eq!(parse(text), Ok(Limit::Rate { count, seconds }));
        }
        assert_eq!(parse("unlimited"), Ok(Limit::Unlimited));
    }

    #[test]
    fn what_the_contract_refuses_is_refused() {
        for text in ["", "60", "/hour", "x/hour", "1.5/hour", "0/hour", "-1/hour", "99999999999/day", "Unlimited"] {
            assert!(matches!(parse(text), Err(Invalid::Format(_))), "{text}");
        }
        for text in ["60/minute", "60/second", "60/", "60/hours", "60/hour/day", "60/ hour", "60/Hour"] {
            assert!(matches!(parse(text), Err(Invalid::Period(_))), "{text}");
        }
    }
}
