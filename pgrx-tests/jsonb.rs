//! `jsonb` made of what was parsed is `jsonb_in`'s to the byte.

#[pgrx::pg_schema]
mod tests {
    use crate::identity::jose::json;
    use crate::pg::Jsonb;
    use pgrx::prelude::*;
    use serde_json::{Map, Value};

    /// What is made of the text, where it can be made without Postgres.
    fn made(text: &str) -> Option<Jsonb> {
        Jsonb::from_members(json::parse_object(text).expect("strict JSON").entries())
    }

    #[track_caller]
    fn assert_same(text: &str) {
        assert_eq!(made(text), Jsonb::parse(text), "{text}");
    }

    #[pg_test]
    fn numbers_and_edges_are_those_of_jsonb_in() {
        for number in [
            "0",
            "-1",
            "9999",
            "10000",
            "-100000000",
            "10001",
            "1767607200",
            "9223372036854775807",
            "-9223372036854775808",
        ] {
            assert_same(&format!(r#"{{"a":{number},"b":[{number}],"abc":{{"n":{number}}}}}"#));
        }
        for text in [
            "{}",
            r#"{"":{},"a":[],"b":[[]],"c":[{}],"d":null,"e":true,"f":false,"g":""}"#,
            r#"{"é":"é\u00e9\ud83d\ude00","bb":"\"\\\/\b\f\n\r\t","a b":[null,true,false,"x",1,[],{}]}"#,
            " { \"b\" : 1 , \"a\" : \"\u{7f}\" } ",
        ] {
            assert_same(text);
        }
        // More members and elements than share one offset.
        for count in [15, 16, 17, 31, 32, 33, 64, 65, 200] {
            let members: Vec<String> = (0..count).map(|index| format!(r#""m{index}":{index}"#)).collect();
            let elements: Vec<String> = (0..count).map(|index| format!(r#""{index}""#)).collect();
            assert_same(&format!(r#"{{{},"array":[{}]}}"#, members.join(","), elements.join(",")));
        }
        for number in ["1.0", "-0", "1e3", "0.1", "9223372036854775808", "1E-2"] {
            assert_eq!(made(&format!(r#"{{"a":[{number}]}}"#)), None, "{number} is numeric's to read");
        }
    }

    /// Xorshift: the same values in each run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % bound
        }

        fn text(&mut self, most: u64) -> String {
            const CHARACTERS: [char; 12] = ['a', 'b', 'Z', '0', ' ', '"', '\\', '\n', '\u{1}', 'é', '\u{ffff}', '😀'];
            (0..self.below(most)).map(|_| CHARACTERS[self.below(12) as usize]).collect()
        }

        fn members(&mut self, depth: u64) -> Map<String, Value> {
            (0..self.below(40)).map(|_| (self.text(6), self.value(depth))).collect()
        }

        fn value(&mut self, depth: u64) -> Value {
            match self.below(if depth == 0 { 6 } else { 8 }) {
                0 => Value::Null,
                1 => (self.below(2) == 0).into(),
                2 => self.below(100_000).into(),
                // As many digits as may be, and few.
                3 => ((self.below(u64::MAX) as i64) >> self.below(64)).into(),
                4 | 5 => self.text(40).into(),
                6 => (0..self.below(40)).map(|_| self.value(depth - 1)).collect(),
                _ => self.members(depth - 1).into(),
            }
        }
    }

    #[pg_test]
    fn whatever_is_made_is_that_of_jsonb_in() {
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        for _ in 0..500 {
            assert_same(&Value::Object(random.members(3)).to_string());
        }
    }
}
