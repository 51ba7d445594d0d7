//! Secrets at rest: AES-256-GCM under one master key.
//!
//! A sealed box is `version (1) ‖ key id (8) ‖ nonce (12) ‖ ciphertext ‖ tag (16)`. The nonce is random for each box
//! (NIST SP 800-38D §8.2.2: good for 2³² boxes under one key). Version, key id and the caller's associated data are
//! authenticated with the ciphertext: a box copied to another row, or another column, does not open.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use std::fmt;
use zeroize::Zeroizing;

/// Bytes of a master key.
pub const MASTER_KEY_BYTES: usize = 32;

/// Bytes of a key id.
pub const KEY_ID_BYTES: usize = 8;

/// The format of the boxes made here.
const VERSION: u8 = 1;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 1 + KEY_ID_BYTES;
const KEY_ID_CONTEXT: &[u8] = b"pg_tenancy master key";

/// Which master key sealed a box; tells nothing about the key.
pub type KeyId = [u8; KEY_ID_BYTES];

/// The key that everything at rest is sealed under. Its bytes live in the backend's cipher context only.
pub struct MasterKey {
    cipher: RandomizedNonceKey,
    id: KeyId,
}

/// Why a box did not open, or a key file was of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealError {
    /// The key file holds neither 32 bytes, nor 64 hexadecimal digits, nor base64 of 32 bytes.
    InvalidMasterKey,
    /// The key is one byte repeated.
    WeakMasterKey,
    /// The box was sealed under another master key.
    WrongKey,
    /// The box is too short, of an unknown version, changed, or not for this place.
    Corrupt,
    /// The random generator or the cipher failed.
    Failed,
}

impl SealError {
    /// The stable name, for DETAIL's `"reason"`.
    pub fn name(self) -> &'static str {
        match self {
            SealError::InvalidMasterKey => "invalid_master_key",
            SealError::WeakMasterKey => "weak_master_key",
            SealError::WrongKey => "wrong_key",
            SealError::Corrupt => "corrupt",
            SealError::Failed => "seal_failed",
        }
    }
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SealError::InvalidMasterKey => {
                "the master key is not 32 bytes, 64 hexadecimal digits or base64 of 32 bytes"
            }
            SealError::WeakMasterKey => "the master key is one byte repeated",
            SealError::WrongKey => "the secret was sealed under another master key",
            SealError::Corrupt => "the sealed secret is damaged, or was sealed for another place",
            SealError::Failed => "the secret could not be sealed",
        })
    }
}

impl std::error::Error for SealError {}

impl MasterKey {
    /// Reads the content of a key file: exactly 32 bytes as they are; else, without the white space around them,
    /// 64 hexadecimal digits or base64 (either alphabet, padded or not) of 32 bytes.
    pub fn parse(content: &[u8]) -> Result<MasterKey, SealError> {
        let key = decode(content).ok_or(SealError::InvalidMasterKey)?;
        if key.iter().all(|byte| *byte == key[0]) {
            return Err(SealError::WeakMasterKey);
        }
        let mut context = Context::new(&SHA256);
        context.update(KEY_ID_CONTEXT);
        context.update(&key[..]);
        let mut id = KeyId::default();
        id.copy_from_slice(&context.finish().as_ref()[..KEY_ID_BYTES]);
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &key[..]).map_err(|_| SealError::Failed)?;
        Ok(MasterKey { cipher, id })
    }

    /// The key's id: the first 8 bytes of SHA-256("pg_tenancy master key" ‖ key).
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Seals a secret for one place, which `associated` names (table, row and column, for example).
    pub fn seal(&self, secret: &[u8], associated: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut header = [0; HEADER_BYTES];
        header[0] = VERSION;
        header[1..].copy_from_slice(&self.id);
        // Room for the tag from the start: a Vec that grows would leave the secret behind in freed memory.
        let mut body = Vec::with_capacity(secret.len() + TAG_BYTES);
        body.extend_from_slice(secret);
        let nonce = self
            .cipher
            .seal_in_place_append_tag(Aad::from([&header, associated].concat()), &mut body)
            .map_err(|_| SealError::Failed)?;
        Ok([&header[..], nonce.as_ref(), &body].concat())
    }

    /// Opens a box that was sealed for that place.
    pub fn open(&self, sealed: &[u8], associated: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        if key_id(sealed)? != self.id {
            return Err(SealError::WrongKey);
        }
        let (header, rest) = sealed.split_at(HEADER_BYTES);
        let (nonce, body) = rest.split_at(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Corrupt)?;
        let mut body = Zeroizing::new(body.to_vec());
        let secret_bytes = self
            .cipher
            .open_in_place(nonce, Aad::from([header, associated].concat()), &mut body)
            .map_err(|_| SealError::Corrupt)?
            .len();
        body.truncate(secret_bytes);
        Ok(body)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Which key a box was sealed under. Refuses what cannot be a box as `corrupt`.
pub fn key_id(sealed: &[u8]) -> Result<KeyId, SealError> {
    if sealed.len() < HEADER_BYTES + NONCE_LEN + TAG_BYTES || sealed[0] != VERSION {
        return Err(SealError::Corrupt);
    }
    sealed[1..HEADER_BYTES].try_into().map_err(|_| SealError::Corrupt)
}

fn decode(content: &[u8]) -> Option<Zeroizing<[u8; MASTER_KEY_BYTES]>> {
    let mut key = Zeroizing::new([0; MASTER_KEY_BYTES]);
    if content.len() == MASTER_KEY_BYTES {
        key.copy_from_slice(content);
        return Some(key);
    }
    let text = content.trim_ascii();
    if text.len() == 2 * MASTER_KEY_BYTES {
        for (byte, digits) in key.iter_mut().zip(text.chunks_exact(2)) {
            *byte = hex_digit(digits[0])? << 4 | hex_digit(digits[1])?;
        }
        return Some(key);
    }
    let either_padding = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [STANDARD, URL_SAFE].iter().find_map(|alphabet| {
        let bytes = Zeroizing::new(GeneralPurpose::new(alphabet, either_padding).decode(text).ok()?);
        let mut key = Zeroizing::new([0; MASTER_KEY_BYTES]);
        (bytes.len() == MASTER_KEY_BYTES).then(|| key.copy_from_slice(&bytes))?;
        Some(key)
    })
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(seed: u8) -> Vec<u8> {
        (0..32).map(|index| seed.wrapping_add(index * 7)).collect()
    }

    fn key(seed: u8) -> MasterKey {
        MasterKey::parse(&raw(seed)).unwrap()
    }

    #[test]
    fn what_was_sealed_opens_in_its_place_only() {
        let sealed = key(1).seal(b"secret", b"issuer_keys/1").unwrap();
        assert_eq!(sealed.len(), 1 + 8 + 12 + 6 + 16);
        assert_eq!(&key(1).open(&sealed, b"issuer_keys/1").unwrap()[..], b"secret");
        assert_eq!(key(1).open(&sealed, b"issuer_keys/2"), Err(SealError::Corrupt));
        assert_eq!(key(2).open(&sealed, b"issuer_keys/1"), Err(SealError::WrongKey));
        assert_eq!(key_id(&sealed), Ok(key(1).id()));
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let sealed = key(1).seal(b"", b"").unwrap();
        for index in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[index / 8] ^= 1 << (index % 8);
            assert!(key(1).open(&changed, b"").is_err(), "bit {index}");
        }
        for length in 0..sealed.len() {
            assert_eq!(key(1).open(&sealed[..length], b""), Err(SealError::Corrupt));
        }
    }

    #[test]
    fn two_boxes_of_one_secret_differ() {
        assert_ne!(key(1).seal(b"secret", b"").unwrap(), key(1).seal(b"secret", b"").unwrap());
    }

    #[test]
    fn the_key_file_may_be_raw_hexadecimal_or_base64() {
        let bytes = raw(200);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let padded = base64::engine::general_purpose::STANDARD.encode(&bytes);
        let unpadded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&bytes);
        for text in
            [hex.clone(), hex.to_uppercase(), format!(" {hex}\n"), padded.clone(), format!("{padded}\r\n"), unpadded]
        {
            assert_eq!(MasterKey::parse(text.as_bytes()).unwrap().id(), key(200).id(), "{text}");
        }
        for text in ["", "\n", "short", &hex[..63], &format!("{hex}0"), &"zz".repeat(32), &padded[..40]] {
            assert_eq!(MasterKey::parse(text.as_bytes()).unwrap_err(), SealError::InvalidMasterKey, "{text}");
        }
        assert_eq!(MasterKey::parse(&[0; 32]).unwrap_err(), SealError::WeakMasterKey);
        assert_eq!(MasterKey::parse(&[b'0'; 64]).unwrap_err(), SealError::WeakMasterKey);
    }

    #[test]
    fn debug_shows_the_id_only() {
        let shown = format!("{:?}", key(1));
        assert!(shown.starts_with("MasterKey { id: ["), "{shown}");
    }
}
