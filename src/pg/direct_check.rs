//! Whether a table's CHECK constraint is the one whose rule our writers judge by themselves.
//!
//! The relation cache has a constraint's expression as text. It is read once: a text that was found to be ours is kept,
//! and compared from then on. Another one under the same name is read anew, whenever it comes.

use super::guard::raw;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::{CStr, CString};

/// A CHECK constraint that calls one function of ours with plain columns.
pub struct Check {
    pub name: &'static CStr,
    /// The function, in the schema `tenancy`.
    pub function: &'static CStr,
    /// The columns it is given, by their numbers.
    pub columns: &'static [i16],
}

thread_local! {
    /// By the constraint's name, the text that was found to be ours.
    static KNOWN: RefCell<Vec<(&'static CStr, CString)>> = const { RefCell::new(Vec::new()) };
}

impl Check {
    /// Whether it is the only constraint of a table's.
    ///
    /// SAFETY of callers: the constraints of an open relation, or null; in [`boundary`](super::guard::boundary).
    pub(super) unsafe fn is_alone_in(&self, constraints: *const pg_sys::TupleConstr) -> bool {
        // SAFETY: the relation cache holds as many constraints as it says, each with a name and an expression.
        unsafe {
            if constraints.is_null() || (*constraints).num_check != 1 {
                return false;
            }
            let check = &*(*constraints).check;
            if CStr::from_ptr(check.ccname) != self.name {
                return false;
            }
            let text = CStr::from_ptr(check.ccbin);
            let is_known = KNOWN
                .with_borrow(|known| known.iter().any(|(name, known)| *name == self.name && known.as_c_str() == text));
            // Nothing that needs a destructor lives while it is read.
            if is_known || !self.is_in(check.ccbin) {
                return is_known;
            }
            KNOWN.with_borrow_mut(|known| {
                known.retain(|(name, _)| *name != self.name);
                known.push((self.name, text.to_owned()));
            });
            true
        }
    }

    /// Whether the expression is the call and nothing else.
    ///
    /// SAFETY of callers: an expression as the catalog keeps it; in [`boundary`](super::guard::boundary).
    unsafe fn is_in(&self, text: *const std::ffi::c_char) -> bool {
        // SAFETY: what is read is of the kind that its tag says.
        unsafe {
            let node = raw::stringToNode(text).cast::<pg_sys::Node>();
            if node.is_null() || (*node).type_ != pg_sys::NodeTag::T_FuncExpr {
                return false;
            }
            let call = &*node.cast::<pg_sys::FuncExpr>();
            let schema = raw::get_namespace_oid(c"tenancy".as_ptr(), true);
            let name = raw::get_func_name(call.funcid);
            if name.is_null()
                || CStr::from_ptr(name) != self.function
                || raw::get_func_namespace(call.funcid) != schema
                || call.args.is_null()
                || (*call.args).length as usize != self.columns.len()
            {
                return false;
            }
            self.columns.iter().enumerate().all(|(at, column)| {
                let argument = (*(*call.args).elements.add(at)).ptr_value.cast::<pg_sys::Node>();
                (*argument).type_ == pg_sys::NodeTag::T_Var && (*argument.cast::<pg_sys::Var>()).varattno == *column
            })
        }
    }
}
