//! A connection: its ends when it is accepted, and its first bytes as they pass.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Release};

use super::bindings::{
    ap_add_input_filter, ap_filter_t, ap_filter_type_AP_FTYPE_CONNECTION, ap_get_brigade, ap_input_mode_t,
    ap_input_mode_t_AP_MODE_GETLINE, ap_input_mode_t_AP_MODE_READBYTES, ap_input_mode_t_AP_MODE_SPECULATIVE,
    ap_register_input_filter, apr_brigade_flatten, apr_brigade_length, apr_bucket_brigade, apr_dynamic_fn_retrieve,
    apr_off_t, apr_pool_t, apr_read_type_e, apr_sockaddr_t, apr_status_t, conn_rec, request_rec, server_rec,
};
use super::{bytes, counters, guarded, keep, set_slot, slot};
use crate::connection::{Connection, Endpoint, Tls};
use crate::counters::Counters;
use crate::h2::{Progress, Watch};

const FILTER: &CStr = c"REQIN_LOG_BEGINNING";

/// The most bytes that are looked at in one call; more than [`Watch`] takes at all.
const MAX_LOOK: usize = 128 << 10;

/// What the filter has of its connection.
struct Look {
    watch: Watch,
    has_begun: bool,
}

/// Registers the filter. It stands above mod_ssl's, whose type is further down by five, and so sees what that has decrypted; and it
/// is there before mod_http2 takes the connection.
pub(super) fn register_filter() {
    // SAFETY: httpd is reading its configuration.
    unsafe { ap_register_input_filter(FILTER.as_ptr(), Some(input), None, ap_filter_type_AP_FTYPE_CONNECTION) };
}

/// The function of mod_ssl's that says what it knows of a connection.
type SslVarLookup =
    unsafe extern "C" fn(*mut apr_pool_t, *mut server_rec, *mut conn_rec, *mut request_rec, *mut c_char) -> *mut c_char;

/// Null without mod_ssl.
static SSL_VAR_LOOKUP: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// Looks whether mod_ssl is loaded.
pub(super) fn find_mod_ssl() {
    // SAFETY: httpd has read its configuration.
    let found = unsafe { apr_dynamic_fn_retrieve(c"ssl_var_lookup".as_ptr()) };
    SSL_VAR_LOOKUP.store(found.map_or(ptr::null_mut(), |found| found as *mut c_void), Release);
}

/// Remembers the ends of a connection of a client's, and begins to look at what comes.
///
/// # Safety
/// `c` is a new connection, in its thread.
pub(super) unsafe fn begin(c: *mut conn_rec) {
    // SAFETY: as above. What is kept lives as long as the connection.
    unsafe {
        // A stream of HTTP/2 has no socket of its own; a connection to a backend is no client's.
        if !(*c).master.is_null() || (*c).outgoing != 0 {
            return;
        }
        set_slot((*c).conn_config, keep((*c).pool, ends(c)));
        let look = keep((*c).pool, Look { watch: Watch::default(), has_begun: false });
        ap_add_input_filter(FILTER.as_ptr(), look.cast(), ptr::null_mut(), c);
    }
}

/// A connection with its addresses and nothing else.
///
/// # Safety
/// `c` is a connection.
unsafe fn ends(c: *const conn_rec) -> Connection {
    // SAFETY: as above; both are null or of the connection's.
    unsafe {
        let end = |ip: *const c_char, address: *const apr_sockaddr_t| {
            Endpoint::new(bytes(ip).unwrap_or_default(), address.as_ref().map_or(0, |address| address.port))
        };
        Connection::new(end((*c).client_ip, (*c).client_addr), &end((*c).local_ip, (*c).local_addr))
    }
}

/// Calls `work` with the connection that a request came on: for a stream of HTTP/2, the one that has the socket.
///
/// # Safety
/// `c` is the connection of a request that is being worked on.
pub(super) unsafe fn with<T>(c: *const conn_rec, work: impl FnOnce(&Connection) -> T) -> T {
    // SAFETY: as above; `begin` has filled the slot, with what lives as long as the connection.
    unsafe {
        let c = if (*c).master.is_null() { c } else { (*c).master.cast_const() };
        match slot::<Connection>((*c).conn_config).as_ref() {
            Some(connection) => work(connection),
            None => work(&ends(c)),
        }
    }
}

/// Passes on what comes, and looks at it until enough is known. It never removes itself: a request may hold a pointer to it.
unsafe extern "C" fn input(
    f: *mut ap_filter_t,
    brigade: *mut apr_bucket_brigade,
    mode: ap_input_mode_t,
    block: apr_read_type_e,
    most: apr_off_t,
) -> apr_status_t {
    // SAFETY: httpd calls a filter with itself and a brigade, in the thread that works on the connection.
    unsafe {
        let status = ap_get_brigade((*f).next, brigade, mode, block, most);
        if status == 0 && !(*f).ctx.is_null() && !guarded(false, || look(f, brigade, mode)) {
            (*f).ctx = ptr::null_mut();
        }
        status
    }
}

/// Looks at what has come; whether there is more to look for.
///
/// # Safety
/// As `input`; the context is a [`Look`].
unsafe fn look(f: *mut ap_filter_t, brigade: *mut apr_bucket_brigade, mode: ap_input_mode_t) -> bool {
    // These bytes come again.
    if mode == ap_input_mode_t_AP_MODE_SPECULATIVE {
        return true;
    }
    // Another mode hands over the socket itself, which must not be read here.
    if mode != ap_input_mode_t_AP_MODE_READBYTES && mode != ap_input_mode_t_AP_MODE_GETLINE {
        return mode != super::bindings::ap_input_mode_t_AP_MODE_EXHAUSTIVE;
    }
    // SAFETY: as above. `flatten` writes at most as many bytes as it is told, and says how many.
    unsafe {
        let mut length = 0;
        if apr_brigade_length(brigade, 0, &raw mut length) != 0 || length < 0 {
            return false;
        }
        let mut length = usize::try_from(length).unwrap_or(0).min(MAX_LOOK);
        if length == 0 {
            return true;
        }
        let mut seen: Vec<u8> = vec![0; length];
        if apr_brigade_flatten(brigade, seen.as_mut_ptr().cast(), &raw mut length) != 0 {
            return false;
        }
        seen.truncate(length);
        let c = (*f).c;
        let look = &mut *(*f).ctx.cast::<Look>();
        with(c, |connection| {
            if !std::mem::replace(&mut look.has_begun, true) {
                // The handshake is over now, and no other thread uses the connection yet.
                if let Some(tls) = tls(c) {
                    connection.set_tls(&tls);
                }
            }
            let (signature, is_complete) = match look.watch.feed(&seen) {
                Progress::Unfinished => return true,
                Progress::Other => return false,
                Progress::Complete(signature) => (signature, true),
                Progress::Incomplete(signature) => (signature, false),
            };
            Counters::add(&counters().h2_connections);
            if !is_complete {
                Counters::add(&counters().h2_incomplete);
            }
            connection.set_h2(&signature);
            false
        })
    }
}

/// What mod_ssl says of a connection.
///
/// # Safety
/// `c` is a connection that has had its handshake, in its thread.
unsafe fn tls(c: *mut conn_rec) -> Option<Tls> {
    let lookup = SSL_VAR_LOOKUP.load(Acquire);
    if lookup.is_null() {
        return None;
    }
    // SAFETY: the pointer is of mod_ssl's function, of this type. It only reads the name.
    unsafe {
        let lookup = std::mem::transmute::<*mut c_void, SslVarLookup>(lookup);
        let value = |name: &CStr| {
            let value = lookup((*c).pool, (*c).base_server, c, ptr::null_mut(), name.as_ptr().cast_mut());
            bytes(value).map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
        };
        let protocol = value(c"SSL_PROTOCOL");
        if protocol.is_empty() {
            return None;
        }
        let resumed = value(c"SSL_SESSION_RESUMED") == "Resumed";
        Some(Tls { protocol, cipher: value(c"SSL_CIPHER"), sni: value(c"SSL_TLS_SNI"), resumed })
    }
}
