//! A compact JWS (RFC 7515 §7.1), taken apart and not yet believed.

use super::base64url;
use super::header::Header;
use super::reason::Reason;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// Longest token, in bytes. Larger ones are refused before anything is decoded.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// A token whose form and header are in order. Nothing in it is verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Token<'a> {
    header: Rc<Header>,
    signing_input: &'a str,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// Parses `header.payload.signature`.
    ///
    /// The payload may be empty (RFC 7515 allows it; [`super::Claims::parse`] does not), the signature may not.
    pub fn parse(text: &'a str) -> Result<Token<'a>, Reason> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(Reason::TokenTooLarge);
        }
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Reason::MalformedToken);
        };
        if header.is_empty() {
            return Err(Reason::MalformedToken);
        }
        let header = header_of(header)?;
        if signature.is_empty() {
            return Err(Reason::MissingSignature);
        }
        let signing_input = &text[..text.len() - signature.len() - 1];
        Ok(Token { header, signing_input, payload: decode(payload)?, signature: decode(signature)? })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The header, to keep.
    pub fn shared_header(&self) -> Rc<Header> {
        Rc::clone(&self.header)
    }

    /// What was signed: the first two parts as they came (RFC 7515 §5.2, step 8).
    pub fn signing_input(&self) -> &'a str {
        self.signing_input
    }

    /// The decoded payload.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The decoded payload, to keep.
    pub fn into_payload(self) -> Vec<u8> {
        self.payload
    }

    /// The decoded signature.
    pub fn signature(&self) -> &Vec<u8> {
        &self.signature
    }
}

impl fmt::Debug for Token<'_> {
    /// Shows the header only: a token in a log is a token in the wrong hands.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("header", &self.header).finish_non_exhaustive()
    }
}

/// The tokens of a key have the same header to the byte, so the last one is kept with what it says.
fn header_of(part: &str) -> Result<Rc<Header>, Reason> {
    thread_local! {
        static LAST: RefCell<Option<(String, Rc<Header>)>> = const { RefCell::new(None) };
    }
    let known =
        LAST.with_borrow(|last| last.as_ref().filter(|(text, _)| text == part).map(|(_, header)| Rc::clone(header)));
    if let Some(header) = known {
        return Ok(header);
    }
    let header = Rc::new(Header::parse(&decode(part)?)?);
    LAST.set(Some((part.to_owned(), Rc::clone(&header))));
    Ok(header)
}

fn decode(part: &str) -> Result<Vec<u8>, Reason> {
    base64url::decode(part).map_err(|_| Reason::MalformedBase64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "eyJhbGciOiJIUzI1NiJ9";

    #[test]
    fn the_parts_come_apart() {
        let text = format!("{HEADER}.Zm9v.AQI");
        let token = Token::parse(&text).unwrap();
        assert_eq!(token.signing_input(), format!("{HEADER}.Zm9v"));
        assert_eq!((token.payload(), token.signature().as_slice()), (&b"foo"[..], &[1, 2][..]));
        assert!(!format!("{token:?}").contains("Zm9v"));
    }

    #[test]
    fn attack_32_other_serialisations_are_refused() {
        let cases = [
            (String::new(), Reason::MalformedToken),
            ("..".into(), Reason::MalformedToken),
            (format!("{HEADER}.Zm9v"), Reason::MalformedToken),
            (format!("{HEADER}.Zm9v.AQI.AQI"), Reason::MalformedToken),
            (format!("{HEADER}.a.b.c.d"), Reason::MalformedToken),
            (r#"{"payload":"Zm9v","signatures":[]}"#.into(), Reason::MalformedToken),
            (format!("{HEADER}.Zm9v."), Reason::MissingSignature),
            (format!("{HEADER}.Zm9v.AQI="), Reason::MalformedBase64),
            (format!("{HEADER}.Zm9v.AQI\n"), Reason::MalformedBase64),
            (format!(" {HEADER}.Zm9v.AQI"), Reason::MalformedBase64),
            (format!("{HEADER}.Zm9w=.AQI"), Reason::MalformedBase64),
            (format!("Bearer {HEADER}.Zm9v.AQI"), Reason::MalformedBase64),
            ("e30.Zm9v.AQI".into(), Reason::MalformedHeader),
        ];
        for (text, reason) in cases {
            assert_eq!(Token::parse(&text).unwrap_err(), reason, "{text}");
        }
    }

    #[test]
    fn attack_19_the_size_is_capped_before_any_work() {
        let text = format!("{HEADER}.{}.AQI", "A".repeat(MAX_TOKEN_BYTES));
        assert_eq!(Token::parse(&text).unwrap_err(), Reason::TokenTooLarge);
    }
}
