//! The border to httpd: all that calls C or is called by it. Everything else is safe Rust.
//!
//! What makes it sound:
//!
//! - **Pointers** come from httpd, for the time of a call: to a request, a connection, a server, a pool. httpd says which fields may
//!   be null; those are checked. Texts end with a zero (`bytes`). Each is read while the call lasts and never kept.
//! - **Values of ours** lie in boxes that a pool owns (`pool::keep`) and httpd's vectors point to, one slot for each module. A
//!   server's is written while the configuration is read, when there is one thread, and only read later. A request's is used by the
//!   thread that works on it. A connection's is read by all threads of its HTTP/2 streams, so `Connection` is `Sync`; httpd ends
//!   streams before their connection.
//! - **Panics** end in `guarded`, around everything that C calls.
//! - **Unloading.** httpd unloads the module when it reads its configuration again, after it has emptied the pools that own our
//!   boxes. No thread of ours is left then, because there is none. The counters lie in shared memory that outlives the module.

mod conn;
mod hooks;
mod request;

/// As bindgen makes them from httpd's headers.
#[allow(
    clippy::all,
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    rust_2018_idioms,
    unnecessary_transmutes,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Release};

use bindings::{
    APLOG_DEBUG, APLOG_EMERG, APLOG_ERR, APLOG_INFO, APLOG_WARNING, ap_conf_vector_t, ap_get_module_config,
    ap_log_error_, ap_retained_data_create, ap_retained_data_get, ap_server_root_relative, ap_set_module_config,
    apr_pool_cleanup_null, apr_pool_cleanup_register, apr_pool_t, apr_pstrmemdup, apr_shm_baseaddr_get, apr_shm_create,
    apr_status_t, cmd_how_ITERATE, cmd_how_TAKE1, cmd_parms, command_rec, module, server_rec,
};

use crate::channel::{Channel, Report};
use crate::config::{DIRECTIVES, Level, Limits, ServerConfig};
use crate::counters::Counters;

/// What httpd knows the module by. It writes the index into it, while the configuration is read.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "LoadModule names the symbol")]
pub static mut reqin_log_module: module = module {
    version: bindings::MODULE_MAGIC_NUMBER_MAJOR as c_int,
    minor_version: bindings::MODULE_MAGIC_NUMBER_MINOR as c_int,
    module_index: -1,
    // What `<IfModule>` asks for.
    name: c"mod_reqin_log.c".as_ptr(),
    dynamic_load_handle: ptr::null_mut(),
    next: ptr::null_mut(),
    magic: bindings::MODULE_MAGIC_COOKIE as _,
    rewrite_args: None,
    create_dir_config: None,
    merge_dir_config: None,
    create_server_config: Some(create_server_config),
    merge_server_config: Some(merge_server_config),
    cmds: (&raw const COMMANDS).cast(),
    register_hooks: Some(hooks::register),
    flags: 0,
};

/// The directives for httpd, with an empty one at the end.
static mut COMMANDS: [command_rec; DIRECTIVES.len() + 1] = commands();

const fn commands() -> [command_rec; DIRECTIVES.len() + 1] {
    const NONE: command_rec = command_rec {
        name: ptr::null(),
        func: bindings::cmd_func { no_args: None },
        cmd_data: ptr::null_mut(),
        req_override: 0,
        args_how: 0,
        errmsg: ptr::null(),
    };
    let mut all = [NONE; DIRECTIVES.len() + 1];
    let mut at = 0;
    while at < DIRECTIVES.len() {
        all[at] = command_rec {
            name: DIRECTIVES[at].name.as_ptr(),
            func: bindings::cmd_func { take1: Some(directive) },
            req_override: bindings::RSRC_CONF as c_int,
            args_how: if DIRECTIVES[at].repeats { cmd_how_ITERATE } else { cmd_how_TAKE1 },
            errmsg: DIRECTIVES[at].help.as_ptr(),
            ..NONE
        };
        at += 1;
    }
    all
}

/// A server's or virtual host's part of the configuration.
#[derive(Default)]
struct Host {
    config: ServerConfig,
    /// What the module does for it, once the configuration has been read; `None` if it is not enabled.
    live: Option<Live>,
}

/// What the module does for a host.
struct Live {
    channel: Arc<Channel>,
    limits: Limits,
    level: Level,
}

/// Runs what C calls: a panic is a defect of this module, is counted, and goes no further.
fn guarded<T>(otherwise: T, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Counters::add(&counters().lost_defect);
        otherwise
    })
}

/// The bytes of a text of C's.
///
/// # Safety
/// `text` is null or ends with a zero, and stays as it is for `'a`.
unsafe fn bytes<'a>(text: *const c_char) -> Option<&'a [u8]> {
    // SAFETY: as above.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// Gives a value to a pool, which drops it when it is emptied.
///
/// # Safety
/// `pool` is a pool that this thread may use.
unsafe fn keep<T>(pool: *mut apr_pool_t, value: T) -> *mut T {
    unsafe extern "C" fn release<T>(data: *mut c_void) -> apr_status_t {
        // SAFETY: the pool calls this once, with the box below.
        guarded((), || drop(unsafe { Box::from_raw(data.cast::<T>()) }));
        0
    }
    let value = Box::into_raw(Box::new(value));
    // SAFETY: the pool is one, by the caller; the box stays until `release`.
    unsafe {
        apr_pool_cleanup_register(pool, value.cast_const().cast(), Some(release::<T>), Some(apr_pool_cleanup_null))
    };
    value
}

/// This module's slot in one of httpd's vectors; null if nothing was put there.
///
/// # Safety
/// `vector` is a vector of httpd's, and what was put into this module's slot is a `T`.
unsafe fn slot<T>(vector: *const ap_conf_vector_t) -> *mut T {
    // SAFETY: as above; the module is registered.
    unsafe { ap_get_module_config(vector, &raw const reqin_log_module) }.cast()
}

/// Puts a value into this module's slot.
///
/// # Safety
/// As [`slot`]; `value` lives as long as the vector.
unsafe fn set_slot<T>(vector: *mut ap_conf_vector_t, value: *mut T) {
    // SAFETY: as above.
    unsafe { ap_set_module_config(vector, &raw const reqin_log_module, value.cast()) };
}

/// A server's part of the configuration.
///
/// # Safety
/// `server` is a server of httpd's, whose configuration is not being written.
unsafe fn host<'a>(server: *const server_rec) -> Option<&'a Host> {
    // SAFETY: `create_server_config` or `merge_server_config` has put it there; both make a `Host`.
    unsafe { slot::<Host>((*server).module_config).as_ref() }
}

unsafe extern "C" fn create_server_config(pool: *mut apr_pool_t, _: *mut server_rec) -> *mut c_void {
    // SAFETY: httpd's pool of the configuration.
    guarded(ptr::null_mut(), || unsafe { keep(pool, Host::default()) }.cast())
}

unsafe extern "C" fn merge_server_config(pool: *mut apr_pool_t, base: *mut c_void, own: *mut c_void) -> *mut c_void {
    guarded(ptr::null_mut(), || {
        // SAFETY: both are what `create_server_config` has made.
        let (base, own) = unsafe { (&*base.cast::<Host>(), &*own.cast::<Host>()) };
        let merged = Host { config: base.config.merged(&own.config), live: None };
        // SAFETY: httpd's pool of the configuration.
        unsafe { keep(pool, merged) }.cast()
    })
}

/// A directive with one value; of one with several, httpd calls this for each.
unsafe extern "C" fn directive(cmd: *mut cmd_parms, _: *mut c_void, value: *const c_char) -> *const c_char {
    // SAFETY: httpd gives a command with its pools, server and directive, and a text.
    guarded(c"mod_reqin_log has a defect".as_ptr(), || unsafe {
        let (pool, server) = ((*cmd).pool, (*cmd).server);
        let name = bytes((*(*cmd).cmd).name).map(String::from_utf8_lossy).unwrap_or_default();
        let in_root = |path: &std::path::Path| match CString::new(path.as_os_str().as_encoded_bytes()) {
            Ok(text) => {
                let full = bytes(ap_server_root_relative(pool, text.as_ptr())).unwrap_or_default();
                String::from_utf8_lossy(full).into_owned().into()
            }
            Err(_) => path.to_owned(),
        };
        let said = match bytes(value).map(std::str::from_utf8) {
            Some(Ok(value)) => match slot::<Host>((*server).module_config).as_mut() {
                Some(host) => host.config.set(&name, value, in_root),
                None => Err("there is no configuration".to_owned()),
            },
            _ => Err("takes UTF-8".to_owned()),
        };
        match said {
            Ok(None) => ptr::null(),
            Ok(Some(text)) => {
                log(server, &Report { level: Level::Warning, text });
                ptr::null()
            }
            Err(why) => {
                let text = format!("{name} {why}");
                apr_pstrmemdup(pool, text.as_ptr().cast(), text.len())
            }
        }
    })
}

/// Writes to a server's log.
///
/// # Safety
/// `server` is a server of httpd's.
unsafe fn log(server: *const server_rec, report: &Report) {
    let level = match report.level {
        Level::Emerg => APLOG_EMERG,
        Level::Error => APLOG_ERR,
        Level::Warning => APLOG_WARNING,
        Level::Info => APLOG_INFO,
        Level::Debug => APLOG_DEBUG,
    };
    let Ok(text) = CString::new(report.text.replace('\0', "")) else { return };
    // SAFETY: the format takes one text.
    unsafe {
        let index = reqin_log_module.module_index;
        ap_log_error_(
            c"reqin_log".as_ptr(),
            0,
            index,
            level as c_int,
            0,
            server,
            c"mod_reqin_log: %s".as_ptr(),
            text.as_ptr(),
        );
    }
}

static COUNTERS: AtomicPtr<Counters> = AtomicPtr::new(ptr::null_mut());

/// The numbers of the whole server; of this process, if it got no shared memory.
fn counters() -> &'static Counters {
    static OWN: std::sync::OnceLock<Counters> = std::sync::OnceLock::new();
    // SAFETY: null, or what `share_counters` has put there, which stays until the process ends.
    unsafe { COUNTERS.load(Acquire).as_ref() }.unwrap_or_else(|| OWN.get_or_init(Counters::default))
}

/// Finds the shared memory that an earlier reading of the configuration has made, or makes it.
///
/// # Safety
/// `server` is the main server, while its configuration is read.
unsafe fn share_counters(server: *const server_rec) {
    const KEY: &CStr = c"mod_reqin_log-counters";
    // SAFETY: the server's process has a pool that lasts as long as it. New shared memory is zero, which is a value of `Counters`,
    // and large enough; mmap aligns it to a page.
    unsafe {
        let mut kept: *mut *mut Counters = ap_retained_data_get(KEY.as_ptr()).cast();
        if kept.is_null() {
            let mut memory = ptr::null_mut();
            let pool = (*(*server).process).pool;
            if apr_shm_create(&raw mut memory, size_of::<Counters>(), ptr::null(), pool) != 0 {
                let text = "no shared memory: counters are those of each process".to_owned();
                log(server, &Report { level: Level::Warning, text });
                return;
            }
            kept = ap_retained_data_create(KEY.as_ptr(), size_of::<*mut Counters>()).cast();
            *kept = apr_shm_baseaddr_get(memory).cast();
        }
        COUNTERS.store(*kept, Release);
    }
}
