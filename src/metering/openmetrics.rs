//! Figures as OpenMetrics 1.0 text.

use std::fmt::Write;

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// As it stands in the text: a counter's ends in `_total`, a histogram's in `_bucket`, `_sum` or `_count`.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// Names and values of its labels, `le` last.
    pub labels: Vec<(String, String)>,
    /// The figure.
    pub value: f64,
}

impl Sample {
    /// The name of the family it belongs to, which TYPE and HELP name.
    fn family(&self) -> &str {
        let suffixes: &[&str] = match self.kind.as_str() {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[],
        };
        suffixes.iter().find_map(|suffix| self.name.strip_suffix(suffix)).unwrap_or(&self.name)
    }

    /// What its histogram's other lines share with it.
    fn series(&self) -> Vec<&(String, String)> {
        self.labels.iter().filter(|(name, _)| name != "le").collect()
    }
}

/// The exposition: families one after the other, each with its TYPE and HELP, and `# EOF` at the end.
pub fn text(samples: &[Sample], help: impl Fn(&str) -> Option<&'static str>) -> String {
    let mut families: Vec<&str> = Vec::new();
    for sample in samples {
        if !families.contains(&sample.family()) {
            families.push(sample.family());
        }
    }
    let mut out = String::new();
    for family in families {
        let own: Vec<&Sample> = samples.iter().filter(|sample| sample.family() == family).collect();
        let _ = writeln!(out, "# TYPE {family} {}", own[0].kind);
        if let Some(help) = help(family) {
            let _ = writeln!(out, "# HELP {family} {}", escape(help));
        }
        let mut written: Vec<Vec<&(String, String)>> = Vec::new();
        for sample in &own {
            let series = sample.series();
            if written.contains(&series) {
                continue;
            }
            for line in own.iter().filter(|other| other.series() == series) {
                write_line(&mut out, line);
            }
            written.push(series);
        }
    }
    out.push_str("# EOF\n");
    out
}

fn write_line(out: &mut String, sample: &Sample) {
    out.push_str(&sample.name);
    if !sample.labels.is_empty() {
        let labels: Vec<String> =
            sample.labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let _ = write!(out, "{{{}}}", labels.join(","));
    }
    let _ = writeln!(out, " {}", number(sample.value));
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

/// A number as the format writes it.
pub fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        format!("{value}")
    }
}

#[cfg(test)]
mod tests {
    use super::{Sample, text};

    fn sample(name: &str, kind: &str, labels: &[(&str, &str)], value: f64) -> Sample {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Sample { name: name.to_owned(), kind: kind.to_owned(), labels, value }
    }

    #[test]
    fn families_are_together_and_labels_escaped() {
        let samples = [
            sample("a_total", "counter", &[("tenant", "x\"y\\z\n")], 3.0),
            sample("g", "gauge", &[], -0.5),
            sample("h_bucket", "histogram", &[("tenant", "a"), ("le", "0.1")], 1.0),
            sample("h_bucket", "histogram", &[("tenant", "b"), ("le", "0.1")], 0.0),
            sample("h_bucket", "histogram", &[("tenant", "a"), ("le", "+Inf")], 2.0),
            sample("h_count", "histogram", &[("tenant", "a")], 2.0),
            sample("a_total", "counter", &[("tenant", "b")], f64::INFINITY),
        ];
        let help = |family: &str| (family == "a").then_some("How many.");
        assert_eq!(
            text(&samples, help),
            "# TYPE a counter\n# HELP a How many.\na_total{tenant=\"x\\\"y\\\\z\\n\"} 3\na_total{tenant=\"b\"} +Inf\n\
             # TYPE g gauge\ng -0.5\n\
             # TYPE h histogram\nh_bucket{tenant=\"a\",le=\"0.1\"} 1\nh_bucket{tenant=\"a\",le=\"+Inf\"} 2\n\
             h_count{tenant=\"a\"} 2\nh_bucket{tenant=\"b\",le=\"0.1\"} 0\n# EOF\n"
        );
        assert_eq!(text(&[], help), "# EOF\n");
    }
}
