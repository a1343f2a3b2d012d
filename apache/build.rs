//! Bindings of httpd's headers, as the installed apache2-dev (or httpd-devel) has them.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// All that the module calls or reads. What these need comes with them.
const FUNCTIONS: &str = "ap_(add_input_filter|get_brigade|get_module_config|get_protocol|get_server_name|hook_child_init|\
hook_check_config|hook_child_init|hook_log_transaction|hook_post_config|hook_post_read_request|hook_pre_connection|log_error_|\
register_input_filter|retained_data_(create|get)|run_http_scheme|rwrite|server_root_relative|set_module_config)|\
apr_(brigade_flatten|brigade_length|dynamic_fn_retrieve|optional_hook_add|palloc|pool_cleanup_null|pool_cleanup_register|\
pstrmemdup|shm_baseaddr_get|shm_create|table_elts)";
const TYPES: &str =
    "module|command_rec|cmd_parms|request_rec|conn_rec|server_rec|process_rec|ap_filter_t|apr_table_entry_t";
const VALUES: &str = "MODULE_MAGIC_.*|APLOG_.*|APR_HOOK_.*|RSRC_CONF|ap_filter_type_.*|cmd_how_.*|ap_input_mode_t_.*|\
AP_STATUS_SHORT|OK|DECLINED";

fn main() {
    println!("cargo::rerun-if-changed=headers.h");
    println!("cargo::rerun-if-env-changed=APXS");
    let apxs = env::var("APXS").unwrap_or_else(|_| "apxs".to_owned());
    let folders = ["INCLUDEDIR", "APR_INCLUDEDIR", "APU_INCLUDEDIR"];
    let include = folders.iter().map(|name| format!("-I{}", query(&apxs, name)));
    // Such as -D_LARGEFILE64_SOURCE, by which the sizes of APR's types differ.
    let flags = query(&apxs, "EXTRA_CPPFLAGS");
    let bindings = bindgen::Builder::default()
        .header("headers.h")
        .clang_args(include)
        .clang_args(flags.split_whitespace())
        .allowlist_function(FUNCTIONS)
        .allowlist_type(TYPES)
        .allowlist_var(VALUES)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .derive_debug(false)
        .generate_comments(false)
        .layout_tests(false)
        .formatter(bindgen::Formatter::None)
        .generate()
        .expect("httpd's headers, which the package apache2-dev has");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo")).join("bindings.rs");
    bindings.write_to_file(out).expect("a writable build directory");
}

/// What apxs says of a setting; empty if it has none.
fn query(apxs: &str, name: &str) -> String {
    let done = Command::new(apxs).args(["-q", name]).output();
    let done = done.unwrap_or_else(|error| panic!("{apxs}, which the package apache2-dev has: {error}"));
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}
