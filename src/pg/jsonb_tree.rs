//! `jsonb` made of a value in memory, to the byte as `jsonb_in` makes it of the value's text, and in a tenth of the time.
//!
//! The form is that of utils/jsonb.h, on disk since 9.4: a header with the kind and the count, an entry for each name
//! and value with its kind and length (each 32nd has its end's offset instead), then what they consist of.

use super::guard::raw;
use super::jsonb::Jsonb;
use super::numeric;
use pgrx::pg_sys::{
    self, JB_FARRAY, JB_FOBJECT, JB_OFFSET_STRIDE, JENTRY_HAS_OFF, JENTRY_ISBOOL_FALSE, JENTRY_ISBOOL_TRUE,
    JENTRY_ISCONTAINER, JENTRY_ISNULL, JENTRY_ISNUMERIC, JENTRY_ISSTRING, JENTRY_OFFLENMASK, JENTRY_TYPEMASK,
};

/// A JSON value that can be written as `jsonb`.
pub trait Tree: Sized {
    /// A member's name.
    type Name: AsRef<str>;

    /// What it is; None for a number that only `numeric` itself reads.
    fn node(&self) -> Option<Node<'_, Self>>;
}

/// What a JSON value is.
pub enum Node<'a, T: Tree> {
    Null,
    Bool(bool),
    Integer(i64),
    Text(&'a str),
    Array(&'a [T]),
    /// No two members have one name, and they are sorted by its length, then by its bytes.
    Object(&'a [(T::Name, T)]),
}

impl Jsonb {
    /// An object of these members, each as [`Node::Object`] has them. None where a number in it needs Postgres, or where
    /// the database's encoding is not that of the text here.
    pub fn from_members<T: Tree>(members: &[(T::Name, T)]) -> Option<Self> {
        // SAFETY: reads a static of the backend; cannot raise.
        if unsafe { raw::GetDatabaseEncoding() } != pg_sys::pg_enc::PG_UTF8 as i32 {
            return None;
        }
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(&[0; 4]);
        object(&mut bytes, members)?;
        Some(Self::from_bytes(bytes))
    }
}

/// Appends a value; gives its kind and length.
fn value<T: Tree>(bytes: &mut Vec<u8>, tree: &T) -> Option<u32> {
    Some(match tree.node()? {
        Node::Null => JENTRY_ISNULL,
        Node::Bool(false) => JENTRY_ISBOOL_FALSE,
        Node::Bool(true) => JENTRY_ISBOOL_TRUE,
        Node::Text(text) => {
            bytes.extend_from_slice(text.as_bytes());
            JENTRY_ISSTRING | text.len() as u32
        }
        Node::Integer(integer) => {
            let start = bytes.len();
            align(bytes);
            numeric::append_integer(bytes, integer);
            JENTRY_ISNUMERIC | (bytes.len() - start) as u32
        }
        Node::Array(elements) => {
            let start = bytes.len();
            let mut entries = Entries::begin(bytes, JB_FARRAY, elements.len(), elements.len());
            for element in elements {
                let entry = value(bytes, element)?;
                entries.push(bytes, entry);
            }
            JENTRY_ISCONTAINER | (bytes.len() - start) as u32
        }
        Node::Object(members) => {
            let start = bytes.len();
            object(bytes, members)?;
            JENTRY_ISCONTAINER | (bytes.len() - start) as u32
        }
    })
}

/// The names come before the values, in their entries and in what they consist of.
fn object<T: Tree>(bytes: &mut Vec<u8>, members: &[(T::Name, T)]) -> Option<()> {
    let mut entries = Entries::begin(bytes, JB_FOBJECT, members.len(), 2 * members.len());
    for (name, _) in members {
        let name = name.as_ref();
        bytes.extend_from_slice(name.as_bytes());
        entries.push(bytes, JENTRY_ISSTRING | name.len() as u32);
    }
    for (_, member) in members {
        let entry = value(bytes, member)?;
        entries.push(bytes, entry);
    }
    Some(())
}

/// The entries of an array or an object, written as its values are.
struct Entries {
    /// Where the next one goes.
    at: usize,
    written: u32,
    /// Length of what was written.
    total: u32,
}

impl Entries {
    /// Writes the header of a container and leaves room for the entries.
    fn begin(bytes: &mut Vec<u8>, kind: u32, count: usize, entries: usize) -> Self {
        align(bytes);
        bytes.extend_from_slice(&(kind | count as u32).to_ne_bytes());
        let at = bytes.len();
        bytes.resize(at + 4 * entries, 0);
        Entries { at, written: 0, total: 0 }
    }

    fn push(&mut self, bytes: &mut [u8], mut entry: u32) {
        self.total += entry & JENTRY_OFFLENMASK;
        if self.written.is_multiple_of(JB_OFFSET_STRIDE) {
            entry = (entry & JENTRY_TYPEMASK) | self.total | JENTRY_HAS_OFF;
        }
        bytes[self.at..self.at + 4].copy_from_slice(&entry.to_ne_bytes());
        self.at += 4;
        self.written += 1;
    }
}

/// Numbers and containers begin at a multiple of four; the gap belongs to them.
fn align(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}
