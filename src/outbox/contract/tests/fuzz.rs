//! The fuzz target's checks on its seeds, and on seeds with a few bytes changed: a smoke run without a fuzzer.

use super::super::super::contract;

#[path = "../../../../fuzz/checks/event.rs"]
mod checks;

const REPLACEMENTS: &[u8] = b"\"{}[],:0159.eE-+ntf\\uTZ/a\xC3";

#[test]
fn the_fuzz_target_s_checks_hold_for_its_seeds_and_their_neighbours() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/event");
    let mut state = 1u64;
    let mut below = |end: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % end
    };
    let mut seeds = 0;
    for entry in std::fs::read_dir(folder).expect("the folder of seeds") {
        let seed = std::fs::read(entry.expect("an entry").path()).expect("a seed can be read");
        assert!(checks::check(&seed), "a seed is JSON");
        seeds += 1;
        for _ in 0..2000 {
            let mut changed = seed.clone();
            for _ in 0..=below(3) {
                let at = below(changed.len());
                changed[at] = REPLACEMENTS[below(REPLACEMENTS.len())];
            }
            checks::check(&changed);
        }
    }
    assert!(seeds >= 5);
}
