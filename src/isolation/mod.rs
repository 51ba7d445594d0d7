//! Isolation: what may they see. All of it is SQL; this file says in which order it loads.

use pgrx::extension_sql_file;

extension_sql_file!("../../sql/isolation/shape.sql", name = "isolation_shape", requires = ["accessors", "errors"]);
extension_sql_file!("../../sql/isolation/record.sql", name = "isolation_record", requires = ["isolation_shape"]);
extension_sql_file!("../../sql/isolation/checks.sql", name = "isolation_checks", requires = ["isolation_shape"]);
extension_sql_file!("../../sql/isolation/keys.sql", name = "isolation_keys", requires = ["isolation_record"]);
extension_sql_file!("../../sql/isolation/plan.sql", name = "isolation_plan", requires = ["isolation_keys"]);
extension_sql_file!(
    "../../sql/isolation/protect.sql",
    name = "isolation_protect",
    requires = ["isolation_plan", "isolation_checks"]
);
extension_sql_file!(
    "../../sql/isolation/online_plan.sql",
    name = "isolation_online_plan",
    requires = ["isolation_plan", "isolation_checks"]
);
extension_sql_file!("../../sql/isolation/online.sql", name = "isolation_online", requires = ["isolation_online_plan"]);
extension_sql_file!("../../sql/isolation/audit_rules.sql", name = "isolation_audit_rules", requires = ["errors"]);
extension_sql_file!(
    "../../sql/isolation/audit_tables.sql",
    name = "isolation_audit_tables",
    requires = ["isolation_plan"]
);
extension_sql_file!(
    "../../sql/isolation/audit_around.sql",
    name = "isolation_audit_around",
    requires = ["isolation_audit_tables"]
);
extension_sql_file!(
    "../../sql/isolation/audit.sql",
    name = "isolation_audit",
    requires = ["isolation_audit_rules", "isolation_audit_around"]
);
extension_sql_file!("../../sql/isolation/guard.sql", name = "isolation_guard", requires = ["isolation_audit"]);
