//! Names outside the tables that must differ from tenant to tenant: keys of a cache, of advisory locks, of channels.

use aws_lc_rs::digest::{SHA256, digest};
use std::fmt::Write;

/// `tenant:{tenant}:{part}:{part}…`. A colon parts and nothing else does: in the tenant and in the parts it is
/// written `%3A`, and `%` as `%25`, so that no part can end its tenant's prefix or write another's.
pub fn cache_key<'a>(tenant: &str, parts: impl Iterator<Item = &'a str>) -> String {
    let mut key = String::from("tenant:");
    escape(&mut key, tenant);
    key.push(':');
    for (index, part) in parts.enumerate() {
        if index > 0 {
            key.push(':');
        }
        escape(&mut key, part);
    }
    key
}

/// What caches keep keys apart by (white space, control characters, the end of a line) is written in hex too.
fn escape(key: &mut String, part: &str) {
    for character in part.chars() {
        if matches!(character, ':' | '%') || character.is_whitespace() || character.is_control() {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(key, "%{byte:02X}");
            }
        } else {
            key.push(character);
        }
    }
}

/// A key for `pg_advisory_xact_lock`: 64 bits that two tenants' names share only by a chance of 2⁻⁶⁴.
pub fn lock_key(tenant: &str, name: &str) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&hash("lock", tenant, name)[..8]);
    i64::from_be_bytes(first)
}

/// A channel for LISTEN and NOTIFY: short enough for an identifier, and never another tenant's. Not a secret: whoever
/// knows tenant and name can work it out, and any role may listen.
pub fn channel(tenant: &str, name: &str) -> String {
    let mut channel = String::from("tenancy_");
    for byte in &hash("channel", tenant, name)[..20] {
        let _ = write!(channel, "{byte:02x}");
    }
    channel
}

/// Lengths first, so that no two pairs are written alike.
fn hash(purpose: &str, tenant: &str, name: &str) -> Vec<u8> {
    let mut input = Vec::new();
    for part in [purpose, tenant, name] {
        input.extend((part.len() as u64).to_be_bytes());
        input.extend(part.as_bytes());
    }
    digest(&SHA256, &input).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::{cache_key, channel, lock_key};
    use std::collections::HashMap;

    fn key(tenant: &str, parts: &[&str]) -> String {
        cache_key(tenant, parts.iter().copied())
    }

    #[test]
    fn a_key_reads_as_it_is_meant() {
        assert_eq!(key("skola-malmo-01", &["essays", "17"]), "tenant:skola-malmo-01:essays:17");
        assert_eq!(key("skola", &[]), "tenant:skola:");
        assert_eq!(
            key("user::larare-0017", &["a:b", "50 %", "ö\n"]),
            "tenant:user%3A%3Alarare-0017:a%3Ab:50%20%25:ö%0A"
        );
    }

    /// Every tenant and every list of parts from an alphabet of what could confuse: no two keys are alike, and no
    /// key begins with another tenant's prefix.
    #[test]
    fn no_part_forges_another_tenant_s_prefix() {
        let words = ["", ":", "%", "%3A", "a", "a:", ":a", "a:b", "tenant:b", "b:tenant", "%25", "a b", "\n"];
        let mut seen = HashMap::new();
        let prefixes: Vec<String> = words.iter().map(|tenant| key(tenant, &[])).collect();
        for (owner, tenant) in words.iter().enumerate() {
            let mut lists: Vec<Vec<&str>> = Vec::new();
            for one in words {
                lists.push(vec![one]);
                lists.extend(words.iter().map(|two| vec![one, two]));
            }
            for parts in lists {
                let key = key(tenant, &parts);
                for (other, prefix) in prefixes.iter().enumerate() {
                    assert_eq!(key.starts_with(prefix), other == owner, "{key:?} and {prefix:?}");
                }
                if let Some(first) = seen.insert(key.clone(), (tenant, parts.clone())) {
                    panic!("{key:?} is made from {first:?} and from {:?}", (tenant, parts));
                }
            }
        }
    }

    #[test]
    fn locks_and_channels_differ_by_tenant_name_and_purpose() {
        let mut locks = HashMap::new();
        let mut channels = HashMap::new();
        for tenant in ["a", "ab", "user::a", ""] {
            for name in ["b", "bc", "cb", "", "a", "ab"] {
                assert_eq!(locks.insert(lock_key(tenant, name), (tenant, name)), None);
                let channel = channel(tenant, name);
                assert!(channel.len() == 48 && channel.starts_with("tenancy_"), "{channel}");
                assert_eq!(channels.insert(channel, (tenant, name)), None);
            }
        }
    }
}
