//! The fuzzers' checks for a few seconds, without libFuzzer: its seeds, mutated at random. `make fuzz` runs for long.

use crate::identity::jose;
use std::time::{Duration, Instant};

#[path = "../../../../fuzz/checks/jwk.rs"]
mod jwk;
#[path = "../../../../fuzz/checks/token.rs"]
mod token;

const TIME: Duration = Duration::from_secs(3);

/// What a mutation may put in: the words that make a difference to the parsers.
const WORDS: [&str; 24] = [
    "\"alg\":\"none\",",
    "\"kid\":\"k\",",
    "\"crit\":[\"exp\"],",
    "\"exp\":",
    "\"aud\":[",
    "\"sub\":\"u\",",
    "\\u0000",
    "\\ud800",
    "1e400",
    "-0",
    "18446744073709551616",
    "null",
    "[[[[[[[[",
    "{\"a\":",
    "}",
    "]",
    "\n",
    ".",
    "=",
    "AA",
    "\"kty\":\"oct\",",
    "\"d\":\"AA\",",
    "\"use\":\"enc\",",
    "é",
];

/// Xorshift: a run is repeated by PGT_SEED.
struct Random(u64);

impl Random {
    fn start() -> Random {
        let clock = || std::time::UNIX_EPOCH.elapsed().map_or(1, |elapsed| elapsed.as_nanos() as u64);
        let seed = std::env::var("PGT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(clock);
        println!("seed {seed} (PGT_SEED={seed} repeats it)");
        Random(seed | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

fn mutate(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut data = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(data.len());
        match random.below(6) {
            0 if !data.is_empty() => data[at] ^= 1 << random.below(8),
            1 => data.insert(at, random.below(256) as u8),
            2 => data.truncate(at),
            3 => {
                let end = (at + random.below(40)).min(data.len());
                let part = data[at..end].to_vec();
                data.splice(at..at, part);
            }
            4 => {
                let other = &seeds[random.below(seeds.len())];
                let part = other[random.below(other.len())..].to_vec();
                data.splice(at.., part);
            }
            _ => {
                data.splice(at..at, WORDS[random.below(WORDS.len())].bytes());
            }
        }
    }
    data
}

fn run(seeds: &[(&str, &[u8])], check: impl Fn(&[u8]) -> bool) {
    for (name, seed) in seeds {
        assert!(check(seed), "the seed {name} is not of its kind");
    }
    let seeds: Vec<Vec<u8>> = seeds.iter().map(|(_, seed)| seed.to_vec()).collect();
    let mut random = Random::start();
    let begun = Instant::now();
    let mut runs = 0_u32;
    while begun.elapsed() < TIME {
        check(&mutate(&mut random, &seeds));
        runs += 1;
    }
    println!("{runs} runs");
}

macro_rules! seeds {
    ($kind:literal: $($name:literal),*) => {
        &[$(($name, include_bytes!(concat!("../../../../fuzz/seeds/", $kind, "/", $name)).as_slice())),*]
    };
}

#[test]
fn mutated_tokens_are_judged_without_a_panic() {
    run(seeds!("token": "clerk", "generic", "others", "rfc7515_a1"), token::check);
}

#[test]
fn mutated_keys_are_judged_without_a_panic() {
    run(seeds!("jwk": "oct", "rsa", "set"), jwk::check);
}
