//! MERGE reads its target whatever it says: it tells matched rows from others, runs conditions and counts.
//!
//! Postgres applies the policies for reading to a MERGE only where it reads a column of the target, which is when it
//! needs SELECT on it. `MERGE … ON true WHEN MATCHED AND f()` reads none, and f() runs for every tenant's rows. So each
//! MERGE into a table with row-level security needs SELECT, here, before its policies are looked up.
//!
//! What is analysed elsewhere escapes: bodies in BEGIN ATOMIC, and sessions that have not loaded the library yet.

use pgrx::pg_sys;

static mut NEXT: pg_sys::post_parse_analyze_hook_type = None;

pub(super) fn register() {
    // SAFETY: called once from _PG_init.
    unsafe {
        NEXT = pg_sys::post_parse_analyze_hook;
        pg_sys::post_parse_analyze_hook = Some(after_analysis);
    }
}

/// Not guarded by pgrx: an error of Postgres passes through as it is. These frames hold nothing to drop.
unsafe extern "C-unwind" fn after_analysis(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    // SAFETY: a query just analysed, its relations locked; NEXT is set once.
    unsafe {
        target::look_into(query);
        if let Some(next) = NEXT {
            next(state, query, jumble);
        }
    }
}

/// There is no MERGE on 14.
#[cfg(feature = "pg14")]
mod target {
    pub(super) unsafe fn look_into(_query: *mut pgrx::pg_sys::Query) {}
}

#[cfg(not(feature = "pg14"))]
mod target {
    use super::super::guard::raw;
    use pgrx::pg_sys;

    /// SAFETY of callers: an analysed query, or null.
    pub(super) unsafe fn look_into(query: *mut pg_sys::Query) {
        // SAFETY: nodes are what their tags say, and lists as long as they say.
        unsafe {
            if query.is_null() {
                return;
            }
            match (*query).commandType {
                pg_sys::CmdType::CMD_MERGE => read_target(query),
                pg_sys::CmdType::CMD_UTILITY => look_into(explained_or_kept((*query).utilityStmt)),
                _ => {}
            }
            for at in 0..length((*query).cteList) {
                let inner = (*nth::<pg_sys::CommonTableExpr>((*query).cteList, at)).ctequery;
                if !inner.is_null() && (*inner).type_ == pg_sys::NodeTag::T_Query {
                    look_into(inner.cast());
                }
            }
        }
    }

    /// The query of EXPLAIN and CREATE TABLE AS, analysed by now; else null.
    unsafe fn explained_or_kept(statement: *mut pg_sys::Node) -> *mut pg_sys::Query {
        // SAFETY: as above.
        unsafe {
            let inner = match statement.as_ref().map(|node| node.type_) {
                Some(pg_sys::NodeTag::T_ExplainStmt) => (*statement.cast::<pg_sys::ExplainStmt>()).query,
                Some(pg_sys::NodeTag::T_CreateTableAsStmt) => (*statement.cast::<pg_sys::CreateTableAsStmt>()).query,
                _ => std::ptr::null_mut(),
            };
            match inner.as_ref().map(|node| node.type_) {
                Some(pg_sys::NodeTag::T_Query) => inner.cast(),
                _ => std::ptr::null_mut(),
            }
        }
    }

    unsafe fn read_target(query: *mut pg_sys::Query) {
        // SAFETY: the target is one of the query's own range table.
        unsafe {
            let target = nth::<pg_sys::RangeTblEntry>((*query).rtable, (*query).resultRelation - 1);
            if !is_bound_by_policies((*target).relid) || !is_created_here() {
                return;
            }
            #[cfg(feature = "pg15")]
            let permissions = target;
            #[cfg(not(feature = "pg15"))]
            let permissions = raw::getRTEPermissionInfo((*query).rteperminfos, target);
            // Without a column named, SELECT on any column of it is enough.
            (*permissions).requiredPerms |= pg_sys::AclMode::from(pg_sys::ACL_SELECT);
        }
    }

    /// Other databases of the server are none of ours.
    unsafe fn is_created_here() -> bool {
        // SAFETY: a catalog look-up within the statement's transaction.
        unsafe { raw::get_extension_oid(c"pg_tenancy".as_ptr(), true) != pg_sys::InvalidOid }
    }

    /// Whether row-level security is on for a table, or for the one that a view of one table is over.
    unsafe fn is_bound_by_policies(relation: pg_sys::Oid) -> bool {
        // SAFETY: the statement has locked it, or the view over it; it is closed again on every way but an error.
        unsafe {
            let opened = raw::try_relation_open(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            if opened.is_null() {
                return false;
            }
            let form = (*opened).rd_rel;
            let bound = if (*form).relkind == pg_sys::RELKIND_VIEW as std::ffi::c_char && (*form).relhasrules {
                let under = only_relation(raw::get_view_query(opened));
                under != pg_sys::InvalidOid && is_bound_by_policies(under)
            } else {
                (*form).relrowsecurity
            };
            raw::relation_close(opened, pg_sys::NoLock as pg_sys::LOCKMODE);
            bound
        }
    }

    /// What a view reads that can be written through; else no relation.
    unsafe fn only_relation(view: *mut pg_sys::Query) -> pg_sys::Oid {
        // SAFETY: a view's stored query.
        unsafe {
            let from = (*(*view).jointree).fromlist;
            if length(from) != 1 || (*nth::<pg_sys::Node>(from, 0)).type_ != pg_sys::NodeTag::T_RangeTblRef {
                return pg_sys::InvalidOid;
            }
            let at = (*nth::<pg_sys::RangeTblRef>(from, 0)).rtindex;
            let entry = nth::<pg_sys::RangeTblEntry>((*view).rtable, at - 1);
            if (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION { (*entry).relid } else { pg_sys::InvalidOid }
        }
    }

    unsafe fn length(list: *mut pg_sys::List) -> i32 {
        // SAFETY: a list of Postgres', or the empty one, which is null.
        unsafe { if list.is_null() { 0 } else { (*list).length } }
    }

    unsafe fn nth<T>(list: *mut pg_sys::List, at: i32) -> *mut T {
        // SAFETY: callers stay within the list, whose cells are pointers to nodes.
        unsafe { (*(*list).elements.add(at as usize)).ptr_value.cast() }
    }
}
