//! base64url as RFC 7515 §2 wants it: no padding, no white space, and one encoding for each value.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose};

/// Refuses what most decoders forgive: `=`, foreign characters, and unused bits that are not zero (two texts for one
/// value would make two tokens of one signature).
const STRICT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(false),
);

/// The text was not canonical base64url.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotCanonical;

/// Decodes canonical, unpadded base64url; the empty text is the empty value.
pub fn decode(text: &str) -> Result<Vec<u8>, NotCanonical> {
    STRICT.decode(text).map_err(|_| NotCanonical)
}

/// Encodes as unpadded base64url.
pub fn encode(bytes: &[u8]) -> String {
    general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_text_decodes() {
        assert_eq!(decode("").unwrap(), b"");
        assert_eq!(decode("Zg").unwrap(), b"f");
        assert_eq!(decode("-_8").unwrap(), [0xfb, 0xff]);
        assert_eq!(encode(&[0xfb, 0xff]), "-_8");
    }

    #[test]
    fn attack_32_other_spellings_of_the_same_bytes_are_refused() {
        for text in ["Zg==", "Zg=", "Zh", "Z", " Zg", "Zg ", "Z\ng", "+/8", "Zg\0", "Z.g", "Zgé", "Zm9"] {
            assert_eq!(decode(text), Err(NotCanonical), "{text:?}");
        }
    }
}
