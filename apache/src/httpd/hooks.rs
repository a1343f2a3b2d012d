//! Where httpd calls the module.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use super::bindings::{
    AP_STATUS_SHORT, APR_HOOK_MIDDLE, APR_HOOK_REALLY_FIRST, DECLINED, OK, ap_hook_check_config, ap_hook_child_init,
    ap_hook_log_transaction, ap_hook_post_config, ap_hook_post_read_request, ap_hook_pre_connection, ap_rwrite,
    apr_optional_hook_add, apr_pool_t, conn_rec, request_rec, server_rec,
};
use super::{Host, Live, conn, counters, guarded, host, keep, log, request, share_counters, slot};
use crate::channel::{Channel, Report};
use crate::config::Level;

/// Whether any host is enabled; otherwise connections are left alone.
static ENABLED: AtomicBool = AtomicBool::new(false);

/// What httpd takes for a fault of the configuration.
const FAULT: c_int = 500;

/// Registers the functions below.
pub(super) unsafe extern "C" fn register(_: *mut apr_pool_t) {
    let (none, middle) = (ptr::null(), APR_HOOK_MIDDLE as c_int);
    // SAFETY: httpd calls this while it reads its configuration; the functions have the types that the hooks ask for.
    unsafe {
        ap_hook_check_config(Some(check_config), none, none, middle);
        ap_hook_post_config(Some(post_config), none, none, middle);
        ap_hook_child_init(Some(child_init), none, none, middle);
        ap_hook_pre_connection(Some(pre_connection), none, none, middle);
        // Before any other module changes what the client sent.
        ap_hook_post_read_request(Some(post_read_request), none, none, APR_HOOK_REALLY_FIRST);
        ap_hook_log_transaction(Some(log_transaction), none, none, middle);
        let status: unsafe extern "C" fn(*mut request_rec, c_int) -> c_int = status;
        // As APR_OPTIONAL_HOOK does: mod_status calls it with the arguments that it has.
        let status = std::mem::transmute::<
            unsafe extern "C" fn(*mut request_rec, c_int) -> c_int,
            unsafe extern "C" fn(),
        >(status);
        apr_optional_hook_add(c"status_hook".as_ptr(), Some(status), none, none, middle);
    }
    conn::register_filter();
}

/// Calls `each` for the main server and all virtual hosts.
///
/// # Safety
/// `server` is the main server.
unsafe fn for_all(mut server: *mut server_rec, mut each: impl FnMut(*mut server_rec)) {
    while !server.is_null() {
        each(server);
        // SAFETY: httpd's list of servers.
        server = unsafe { (*server).next };
    }
}

unsafe extern "C" fn check_config(
    _: *mut apr_pool_t,
    _: *mut apr_pool_t,
    _: *mut apr_pool_t,
    main: *mut server_rec,
) -> c_int {
    guarded(FAULT, || {
        let mut result = OK as c_int;
        // SAFETY: the main server, once its configuration has been read.
        unsafe {
            for_all(main, |server| {
                if let Some(Err(text)) = host(server).map(|host| host.config.settings()) {
                    log(server, &Report { level: Level::Emerg, text });
                    result = FAULT;
                }
            });
        }
        result
    })
}

unsafe extern "C" fn post_config(
    _: *mut apr_pool_t,
    _: *mut apr_pool_t,
    _: *mut apr_pool_t,
    main: *mut server_rec,
) -> c_int {
    guarded(FAULT, || {
        let mut channels: Vec<Arc<Channel>> = Vec::new();
        // SAFETY: the main server, once its configuration has been read; there is one thread, and nobody else has its hosts.
        unsafe {
            share_counters(main);
            conn::find_mod_ssl();
            for_all(main, |server| {
                let Some(host) = slot::<Host>((*server).module_config).as_mut() else { return };
                // A fault has been reported by `check_config`, and httpd has ended.
                let Ok(Some(settings)) = host.config.settings() else { return };
                let channel = match channels.iter().find(|channel| *channel.target() == settings.target) {
                    Some(channel) => Arc::clone(channel),
                    None => {
                        channels.push(Arc::new(Channel::new(settings.target)));
                        Arc::clone(&channels[channels.len() - 1])
                    }
                };
                host.live = Some(Live { channel, limits: settings.limits, level: settings.level });
            });
        }
        ENABLED.store(!channels.is_empty(), Relaxed);
        OK as c_int
    })
}

/// Reports what was lost when it is dropped, at a child's end.
struct AtExit {
    channels: Vec<Arc<Channel>>,
    server: *const server_rec,
}

impl Drop for AtExit {
    fn drop(&mut self) {
        for report in self.channels.iter().filter_map(|channel| channel.last_report()) {
            // SAFETY: the pool of the child is emptied before that of its servers.
            unsafe { log(self.server, &report) };
        }
    }
}

unsafe extern "C" fn child_init(pool: *mut apr_pool_t, main: *mut server_rec) {
    guarded((), || {
        let mut channels: Vec<Arc<Channel>> = Vec::new();
        // SAFETY: the main server, and the pool of this child.
        unsafe {
            for_all(main, |server| {
                if let Some(live) = host(server).and_then(|host| host.live.as_ref())
                    && !channels.iter().any(|other| Arc::ptr_eq(other, &live.channel))
                {
                    channels.push(Arc::clone(&live.channel));
                }
            });
            keep(pool, AtExit { channels, server: main });
        }
    });
}

unsafe extern "C" fn pre_connection(c: *mut conn_rec, _: *mut c_void) -> c_int {
    if ENABLED.load(Relaxed) {
        // SAFETY: a connection that httpd has just made, in its thread.
        guarded((), || unsafe { conn::begin(c) });
    }
    DECLINED
}

unsafe extern "C" fn post_read_request(r: *mut request_rec) -> c_int {
    // SAFETY: a request that httpd has just read, in its thread.
    guarded((), || unsafe { request::read(r) });
    DECLINED
}

unsafe extern "C" fn log_transaction(r: *mut request_rec) -> c_int {
    // SAFETY: a request that is over, in the thread that ends it.
    guarded((), || unsafe { request::log(r) });
    OK as c_int
}

unsafe extern "C" fn status(r: *mut request_rec, flags: c_int) -> c_int {
    guarded((), || {
        let text = counters().status(flags & AP_STATUS_SHORT as c_int != 0);
        // SAFETY: the request that mod_status answers.
        unsafe { ap_rwrite(text.as_ptr().cast(), text.len() as c_int, r) };
    });
    OK as c_int
}
