//! What a line of the server's log says about the identity it was written under: plain bytes, no allocation.
//!
//! `pg_tenancy: {"tenant_id":"acme","org_id":"acme","user_id":"ada","correlation_id":"…"}`, then what the line's DETAIL
//! was. It stands first, so that whoever reads the log takes it from the beginning and nothing in an id or in the
//! DETAIL can pass for it. An id is JSON: no control character, line separator or direction mark leaves it as itself.

/// How the note begins.
pub const PREFIX: &[u8] = b"pg_tenancy: {";

/// Characters of an id that are shown; none of ours is longer.
const MAX_CHARS: usize = 255;

/// The ids of an identity, and the DETAIL the line had.
pub struct Note<'a> {
    pub fields: [(&'static str, Option<&'a [u8]>); 4],
    pub detail: Option<&'a [u8]>,
}

impl Note<'_> {
    /// How many bytes [`write`](Self::write) writes.
    pub fn len(&self) -> usize {
        let mut length = 0;
        self.write(&mut |bytes| length += bytes.len());
        length
    }

    /// Hands the note to `out`, piece by piece.
    pub fn write(&self, out: &mut impl FnMut(&[u8])) {
        out(PREFIX);
        let mut first = true;
        for (name, value) in &self.fields {
            let Some(value) = value else { continue };
            out(if first { b"\"" } else { b",\"" });
            first = false;
            out(name.as_bytes());
            out(b"\":\"");
            write_text(value, out);
            out(b"\"");
        }
        out(b"}");
        if let Some(detail) = self.detail.filter(|detail| !detail.is_empty()) {
            out(b" ");
            out(detail);
        }
    }
}

fn write_text(text: &[u8], out: &mut impl FnMut(&[u8])) {
    let mut left = MAX_CHARS;
    for chunk in text.utf8_chunks() {
        let broken = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
        for character in chunk.valid().chars().chain(broken) {
            if left == 0 {
                return out("…".as_bytes());
            }
            left -= 1;
            write_char(character, out);
        }
    }
}

fn write_char(character: char, out: &mut impl FnMut(&[u8])) {
    match character {
        '"' => out(b"\\\""),
        '\\' => out(b"\\\\"),
        _ if is_shown(character) => out(character.encode_utf8(&mut [0; 4]).as_bytes()),
        _ => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let digit = |shift: u16| b"0123456789abcdef"[usize::from(*unit >> shift & 0xf)];
                out(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
            }
        }
    }
}

/// Not what ends a line, moves a terminal's cursor, is invisible or turns the direction of the text.
fn is_shown(character: char) -> bool {
    !character.is_control()
        && !matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::Note;

    fn note(user: &[u8], detail: Option<&str>) -> String {
        let note = Note {
            fields: [("tenant_id", Some(b"acme")), ("org_id", None), ("user_id", Some(user)), ("correlation_id", None)],
            detail: detail.map(str::as_bytes),
        };
        let mut bytes = Vec::new();
        note.write(&mut |piece| bytes.extend_from_slice(piece));
        assert_eq!(bytes.len(), note.len());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_note_is_one_object_and_then_the_detail() {
        assert_eq!(note(b"ada", None), r#"pg_tenancy: {"tenant_id":"acme","user_id":"ada"}"#);
        let noted = note(b"ada", Some(r#"{"reason": "x"}"#));
        assert_eq!(noted, r#"pg_tenancy: {"tenant_id":"acme","user_id":"ada"} {"reason": "x"}"#);
        assert_eq!(note("Åsa".as_bytes(), Some("")), r#"pg_tenancy: {"tenant_id":"acme","user_id":"Åsa"}"#);
    }

    #[test]
    fn no_id_breaks_out_of_its_quotes_or_its_line() {
        for hostile in [
            "a\nLOG:  forged",
            "a\r\n\u{85}\u{2028}\u{2029}b",
            "a\"} LOG: forged {\"tenant_id\":\"globex",
            "a\\",
            "\u{1b}[2J\u{202e}gnitfeil\u{0}\u{7f}\u{e0041}",
        ] {
            let noted = note(hostile.as_bytes(), None);
            assert!(noted.chars().all(super::is_shown), "{noted}");
            let object: serde_json::Value = serde_json::from_str(noted.strip_prefix("pg_tenancy: ").unwrap()).unwrap();
            assert_eq!(object["user_id"], hostile);
            assert_eq!(object["tenant_id"], "acme");
        }
    }

    #[test]
    fn what_is_too_long_or_no_text_is_shortened_and_replaced() {
        let noted = note("ö".repeat(300).as_bytes(), None);
        assert!(noted.contains(&format!("\"{}…\"", "ö".repeat(255))), "{noted}");
        assert!(note(b"a\xff\xc3", None).contains("a\u{fffd}\u{fffd}"));
    }
}
