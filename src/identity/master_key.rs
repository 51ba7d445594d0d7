//! The master key file: `tenancy.master_key_file`, read when a secret is sealed or opened.

use super::seal::{self, MasterKey, SealError};
use crate::pg::{self, Error, Result, State};
use aws_lc_rs::digest::{SHA256, digest};
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use zeroize::Zeroizing;

/// A file larger than this is no key file.
const MAX_FILE_BYTES: u64 = 64 * 1024;
const SETTING: &str = "tenancy.master_key_file";
const HOW_TO_MAKE: &str = "Make one as the server's user: (umask 077; openssl rand -hex 32 > FILE), set \
    tenancy.master_key_file = 'FILE' in postgresql.conf and reload. Its mode must be 0600 or stricter.";

/// The keys of the file: what is sealed is sealed under the first; what the others sealed still opens, until
/// `tenancy.rotate_master_key()` has sealed it anew.
pub struct KeyRing(Vec<MasterKey>);

impl KeyRing {
    /// Reads the file. Errors: 55000, naming the setting and what it wants.
    pub fn read() -> Result<KeyRing> {
        KeyRing::parse(&content()?).map_err(|error| {
            unusable(error.name(), format!("the file named by {SETTING} is of no use: {error}"), HOW_TO_MAKE)
        })
    }

    /// Raw bytes make one key; lines of text make one key each, the current one first.
    fn parse(content: &[u8]) -> std::result::Result<KeyRing, SealError> {
        if content.len() == seal::MASTER_KEY_BYTES {
            return Ok(KeyRing(vec![MasterKey::parse(content)?]));
        }
        let keys = content
            .split(|byte| *byte == b'\n')
            .map(<[u8]>::trim_ascii)
            .filter(|line| !line.is_empty())
            .map(MasterKey::parse)
            .collect::<std::result::Result<Vec<_>, _>>()?;
        if keys.is_empty() { Err(SealError::InvalidMasterKey) } else { Ok(KeyRing(keys)) }
    }

    /// Seals a secret for the place that `context` names.
    pub fn seal(&self, secret: &[u8], context: &str) -> Result<Vec<u8>> {
        self.0[0].seal(secret, context.as_bytes()).map_err(cannot_open)
    }

    /// Opens what was sealed for that place.
    pub fn open(&self, sealed: &[u8], context: &str) -> Result<Zeroizing<Vec<u8>>> {
        let id = seal::key_id(sealed).map_err(cannot_open)?;
        let key = self.0.iter().find(|key| key.id() == id).ok_or_else(|| cannot_open(SealError::WrongKey))?;
        key.open(sealed, context.as_bytes()).map_err(cannot_open)
    }

    /// Whether a box is sealed under the current key.
    pub fn is_current(&self, sealed: &[u8]) -> bool {
        seal::key_id(sealed) == Ok(self.0[0].id())
    }
}

/// SHA-256 of the file, as sha256sum says it: what a copy of it is told by. It gives nothing away of 32 random bytes.
pub fn file_sha256() -> Result<String> {
    let digest = digest(&SHA256, &content()?);
    Ok(digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn content() -> Result<Zeroizing<Vec<u8>>> {
    let unreadable = |error: std::io::Error| {
        let message = format!(
            "the file named by {SETTING} cannot be read: {}; it must be a file with mode 0600 that belongs to the server's user",
            error.kind()
        );
        unusable("master_key_missing", message, HOW_TO_MAKE)
    };
    let path = pg::master_key_file()
        .ok_or_else(|| unusable("master_key_missing", format!("{SETTING} is not set"), HOW_TO_MAKE))?;
    // A pipe would wait for somebody to write into it: what is opened is told by its kind first.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).map_err(unreadable)?;
    let meta = file.metadata().map_err(unreadable)?;
    check(&meta)?;
    let mut content = Zeroizing::new(Vec::with_capacity(meta.len() as usize + 1));
    file.take(MAX_FILE_BYTES).read_to_end(&mut content).map_err(unreadable)?;
    Ok(content)
}

/// A regular file of the server's user, closed to everybody else. Root's is taken as well, where the server may read it
/// at all: who is root reads every file.
fn check(meta: &Metadata) -> Result<()> {
    let server_user = std::fs::metadata("/proc/self").map(|own| own.uid()).unwrap_or(meta.uid());
    if !meta.is_file() || meta.len() > MAX_FILE_BYTES {
        return Err(unusable("invalid_master_key", format!("{SETTING} does not name a key file"), HOW_TO_MAKE));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(unusable(
            "master_key_mode",
            format!("the file named by {SETTING} has mode {:04o}; it must be 0600 or stricter", meta.mode() & 0o7777),
            "Run chmod 0600 on it; if others could read it, make a new key and rotate.",
        ));
    }
    if meta.uid() != server_user && meta.uid() != 0 {
        return Err(unusable(
            "master_key_owner",
            format!("the file named by {SETTING} must belong to the server's user"),
            "Run chown on it.",
        ));
    }
    Ok(())
}

fn unusable(reason: &'static str, message: String, hint: &str) -> Error {
    Error::new(State::NOT_READY, reason, message).hint(hint).detail("setting", SETTING)
}

fn cannot_open(error: SealError) -> Error {
    Error::new(State::NOT_READY, error.name(), format!("A secret at rest is of no use: {error}"))
        .hint("Put the master key that sealed it back into the file, as a line after the current one, then SELECT tenancy.rotate_master_key().")
        .detail("setting", SETTING)
}

#[cfg(test)]
mod tests {
    use super::KeyRing;

    #[test]
    fn the_first_line_seals_and_every_line_opens() {
        let (old, new) = ("1f".repeat(31) + "20", "2e".repeat(31) + "2f");
        let before = KeyRing::parse(old.as_bytes()).unwrap();
        let sealed = before.seal(b"secret", "here").unwrap();
        let both = KeyRing::parse(format!("{new}\n\n{old}\n").as_bytes()).unwrap();
        assert_eq!(&both.open(&sealed, "here").unwrap()[..], b"secret");
        assert!(both.open(&sealed, "there").is_err());
        assert!(!both.is_current(&sealed) && both.is_current(&both.seal(b"secret", "here").unwrap()));
        let after = KeyRing::parse(new.as_bytes()).unwrap();
        assert_eq!(after.open(&sealed, "here").unwrap_err().reason(), "wrong_key");
        for content in ["", "\n", "short", &format!("{new}\nshort")] {
            assert!(KeyRing::parse(content.as_bytes()).is_err());
        }
    }
}
