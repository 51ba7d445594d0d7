//! Run units (contract G). Binary floating point on purpose: the original's figures, digit for digit.

/// Why there are no run units for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSeconds;

/// The most seconds of one run: some thirty years.
const MOST: f64 = 1e9;

/// Run units with four decimals: max(max(cpu, gpu) × tier + overhead, 0.01), rounded as Python's `round` does it (half
/// to even, by the number's exact binary value).
pub fn run_units(cpu_seconds: f64, gpu_seconds: f64, tier: &str, tool_name: &str) -> Result<String, NotSeconds> {
    for seconds in [cpu_seconds, gpu_seconds] {
        if !(0.0..=MOST).contains(&seconds) {
            return Err(NotSeconds);
        }
    }
    let units = cpu_seconds.max(gpu_seconds) * multiplier(tier) + overhead(tool_name);
    Ok(format!("{:.4}", units.max(0.01)))
}

fn multiplier(tier: &str) -> f64 {
    match tier {
        "heavy" => 1.5,
        "ultra" => 3.0,
        _ => 1.0,
    }
}

fn overhead(tool_name: &str) -> f64 {
    match tool_name {
        "sandbox_execute" | "install_module" => 0.2,
        "build_module" => 0.5,
        "validate_module" | "write_module_code" => 0.3,
        _ => 0.1,
    }
}

#[cfg(test)]
mod tests {
    use super::run_units;

    /// Figures of the original's formula, computed by Python.
    #[test]
    fn the_figures_are_the_originals() {
        for (cpu, gpu, tier, tool, units) in [
            (0.0, 0.0, "standard", "default", "0.1000"),
            (5e-05, 0.0, "standard", "default", "0.1001"),
            (1.00005, 0.0, "heavy", "default", "1.6001"),
            (0.12345, 0.0, "standard", "default", "0.2235"),
            (2.5, 1.0, "ultra", "build_module", "8.0000"),
            (1.0, 3.33335, "ultra", "sandbox_execute", "10.2000"),
            (1000000.0, 0.0, "ultra", "x", "3000000.1000"),
            (0.00015, 0.0, "x", "validate_module", "0.3001"),
            (7.77775, 0.0, "heavy", "install_module", "11.8666"),
            (0.33335, 0.2, "standard", "write_module_code", "0.6333"),
            (3.23833, 0.36218, "standard", "build_module", "3.7383"),
            (0.09071301334386506, 0.29555, "standard", "sandbox_execute", "0.4955"),
            (6.30626, 2.88551, "odd", "default", "6.4063"),
            (9.76255, 1.44805, "heavy", "install_module", "14.8438"),
            (0.97431, 3.09505, "odd", "write_module_code", "3.3950"),
            (0.777228774980807, 2.92781, "odd", "build_module", "3.4278"),
            (0.3434756899583733, 1.43969, "standard", "default", "1.5397"),
        ] {
            assert_eq!(run_units(cpu, gpu, tier, tool).as_deref(), Ok(units), "{cpu} {gpu} {tier} {tool}");
        }
    }

    #[test]
    fn what_are_no_seconds_is_refused() {
        for seconds in [-0.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e10] {
            assert!(run_units(seconds, 0.0, "standard", "default").is_err());
            assert!(run_units(0.0, seconds, "standard", "default").is_err());
        }
    }
}
