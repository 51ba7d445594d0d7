//! What makes an RSA public key acceptable, from its numbers alone.

use super::reason::KeyReason;

/// Fewest bits of a modulus (RFC 7518 §3.3).
pub const MIN_MODULUS_BITS: usize = 2048;

/// Most bits of a modulus: what the backend verifies; more would be a way to burn CPU.
pub const MAX_MODULUS_BITS: usize = 8192;

/// Checks modulus and exponent, both big-endian.
///
/// Leading zero octets are refused (RFC 7518 §2, Base64urlUInt: the fewest octets that hold the value); so are a
/// modulus that is short, huge or even, an exponent that is 1, even or above 2³²−1, and the mark of ROCA.
pub fn check(n: &[u8], e: &[u8]) -> Result<(), KeyReason> {
    let (Some(&n_first), Some(&n_last)) = (n.first(), n.last()) else {
        return Err(KeyReason::InvalidJwk);
    };
    let (Some(&e_first), Some(&e_last)) = (e.first(), e.last()) else {
        return Err(KeyReason::InvalidJwk);
    };
    if n_first == 0 || e_first == 0 {
        return Err(KeyReason::NonCanonicalKey);
    }
    let bits = n.len() * 8 - n_first.leading_zeros() as usize;
    if bits < MIN_MODULUS_BITS || e == [1] || e_last.is_multiple_of(2) || e.len() > 4 {
        return Err(KeyReason::WeakKey);
    }
    if bits > MAX_MODULUS_BITS {
        return Err(KeyReason::UnsupportedKey);
    }
    if n_last.is_multiple_of(2) {
        return Err(KeyReason::InvalidKey);
    }
    if has_roca_fingerprint(n) { Err(KeyReason::RocaKey) } else { Ok(()) }
}

/// Whether the modulus bears the mark of Infineon's generator (CVE-2017-15361, "The Return of Coppersmith's Attack",
/// §3.1): its primes are powers of 65537 modulo a primorial, so the modulus is one modulo every small prime.
/// An honest modulus passes for one with a probability below 2⁻²⁷.
fn has_roca_fingerprint(n: &[u8]) -> bool {
    const PRIMES: [u32; 38] = [
        3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107,
        109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
    ];
    PRIMES.iter().all(|&prime| {
        let residue = n.iter().fold(0, |rest, &byte| (rest * 256 + u32::from(byte)) % prime);
        let mut power = 1;
        loop {
            if power == residue {
                return true;
            }
            power = power * 65537 % prime;
            if power == 1 {
                return false;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modulus(bits: usize) -> Vec<u8> {
        let mut n = vec![0x5a; bits.div_ceil(8)];
        n[0] = if bits.is_multiple_of(8) { 0x80 } else { 1 << (bits % 8 - 1) };
        *n.last_mut().unwrap() |= 1;
        n
    }

    #[test]
    fn attack_34_weak_rsa_is_refused() {
        assert_eq!(check(&modulus(2048), &[1, 0, 1]), Ok(()));
        assert_eq!(check(&modulus(2048), &[3]), Ok(()));
        assert_eq!(check(&modulus(8192), &[1, 0, 1]), Ok(()));
        assert_eq!(check(&modulus(2047), &[1, 0, 1]), Err(KeyReason::WeakKey));
        assert_eq!(check(&modulus(8193), &[1, 0, 1]), Err(KeyReason::UnsupportedKey));
        for e in [&[1][..], &[2], &[1, 0, 0], &[1, 0, 0, 0, 1]] {
            assert_eq!(check(&modulus(2048), e), Err(KeyReason::WeakKey), "{e:?}");
        }
    }

    #[test]
    fn encodings_that_are_not_the_shortest_are_refused() {
        let padded = [&[0][..], &modulus(2048)].concat();
        assert_eq!(check(&padded, &[1, 0, 1]), Err(KeyReason::NonCanonicalKey));
        assert_eq!(check(&modulus(2048), &[0, 1, 0, 1]), Err(KeyReason::NonCanonicalKey));
        assert_eq!(check(&[], &[1, 0, 1]), Err(KeyReason::InvalidJwk));
        let mut even = modulus(2048);
        *even.last_mut().unwrap() &= 0xfe;
        assert_eq!(check(&even, &[1, 0, 1]), Err(KeyReason::InvalidKey));
    }
}
