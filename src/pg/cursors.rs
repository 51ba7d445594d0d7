//! Cursors WITH HOLD: their rows outlive the transaction, and so the identity that was asked for
//! them. The next login of another identity closes them.

use super::identity::Identity;
use super::sealed;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};

/// A cursor that was declared WITH HOLD, and whose rows it holds.
struct Held {
    name: CString,
    /// Known when its transaction commits, for then the rows are stored.
    owner: Owner,
}

enum Owner {
    Pending,
    Nobody,
    Of(Box<Identity>),
}

thread_local! {
    static HELD: RefCell<Vec<Held>> = const { RefCell::new(Vec::new()) };
}

static mut NEXT: pg_sys::ProcessUtility_hook_type = None;

pub(super) fn register() {
    // SAFETY: called once from _PG_init, before any statement runs through the hook.
    unsafe {
        NEXT = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(watch_declare);
    }
}

/// Gives the cursors of the committing transaction to its identity.
pub(super) fn attribute_pending() {
    HELD.with_borrow_mut(|held| {
        for cursor in held.iter_mut().filter(|cursor| matches!(cursor.owner, Owner::Pending)) {
            cursor.owner = sealed::with_first(|first| match first {
                Some(identity) => Owner::Of(Box::new(identity.clone())),
                None => Owner::Nobody,
            });
        }
    });
}

/// Closes every held cursor that stores another identity's rows, with a NOTICE.
pub(super) fn close_held_by_others(identity: &Identity) {
    let others = HELD.with_borrow_mut(|held| {
        // SAFETY: a lookup by name.
        held.retain(|cursor| unsafe { !portal(&cursor.name).is_null() });
        let (others, ours) = std::mem::take(held).into_iter().partition(|cursor| match &cursor.owner {
            Owner::Of(owner) => !owner.same_as(identity),
            Owner::Pending | Owner::Nobody => false,
        });
        *held = ours;
        others
    });
    let others: Vec<Held> = others;
    for cursor in others {
        // SAFETY: looked up again, and dropped only if nothing runs in it.
        unsafe {
            let portal = portal(&cursor.name);
            if portal.is_null() || (*portal).portalPinned || (*portal).status == pg_sys::PortalStatus::PORTAL_ACTIVE {
                continue;
            }
            pg_sys::PortalDrop(portal, false);
        }
        pgrx::notice!("closed cursor {:?}, held from another identity", cursor.name);
    }
}

/// The cursor of that name, if it is one held over from an earlier transaction or declared WITH HOLD.
unsafe fn portal(name: &CStr) -> pg_sys::Portal {
    // SAFETY: the lookup returns null or a live portal.
    unsafe {
        let portal = pg_sys::GetPortalByName(name.as_ptr());
        if !portal.is_null() && (*portal).cursorOptions & pg_sys::CURSOR_OPT_HOLD as i32 == 0 {
            return std::ptr::null_mut();
        }
        portal
    }
}

/// Not guarded by pgrx: an error of the statement must pass through as it is, SQLSTATE and all. This frame
/// holds nothing to drop while the statement runs.
#[allow(clippy::too_many_arguments)]
unsafe extern "C-unwind" fn watch_declare(
    statement: *mut pg_sys::PlannedStmt,
    query: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    receiver: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    unsafe extern "C-unwind" {
        fn standard_ProcessUtility(
            statement: *mut pg_sys::PlannedStmt,
            query: *const c_char,
            read_only_tree: bool,
            context: pg_sys::ProcessUtilityContext::Type,
            params: pg_sys::ParamListInfo,
            environment: *mut pg_sys::QueryEnvironment,
            receiver: *mut pg_sys::DestReceiver,
            completion: *mut pg_sys::QueryCompletion,
        );
    }
    // SAFETY: the arguments are passed on as they came; the cursor's name belongs to the statement's
    // tree, which outlives its execution.
    unsafe {
        let name = held_cursor_name(statement);
        match NEXT {
            Some(next) => {
                next(statement, query, read_only_tree, context, params, environment, receiver, completion);
            }
            None => standard_ProcessUtility(
                statement,
                query,
                read_only_tree,
                context,
                params,
                environment,
                receiver,
                completion,
            ),
        }
        if !name.is_null() {
            let name = CStr::from_ptr(name).to_owned();
            HELD.with_borrow_mut(|held| {
                // Those that were closed meanwhile go too: a session that never logs in must not gather them.
                held.retain(|cursor| cursor.name != name && !portal(&cursor.name).is_null());
                held.push(Held { name, owner: Owner::Pending });
            });
        }
    }
}

/// The name of the cursor that this statement declares WITH HOLD, else null.
unsafe fn held_cursor_name(statement: *mut pg_sys::PlannedStmt) -> *const c_char {
    // SAFETY: a utility statement's node is of the type its tag says.
    unsafe {
        let node = (*statement).utilityStmt;
        if node.is_null() || (*node).type_ != pg_sys::NodeTag::T_DeclareCursorStmt {
            return std::ptr::null();
        }
        let declare = node.cast::<pg_sys::DeclareCursorStmt>();
        if (*declare).options & pg_sys::CURSOR_OPT_HOLD as i32 == 0 {
            return std::ptr::null();
        }
        (*declare).portalname
    }
}
