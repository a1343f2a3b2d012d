//! A request: what the client sent, when it has been read, and how it went, when it is over.

use std::slice;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::bindings::{
    ap_get_server_name, ap_run_http_scheme, apr_table_elts, apr_table_entry_t, apr_table_t, request_rec,
};
use super::{Live, bytes, conn, counters, host, keep, set_slot, slot};
use crate::connection::Endpoint;
use crate::record::{Head, Incoming, Outcome, Record};

/// Keeps what a record has of a request, as long as no other module has changed it.
///
/// # Safety
/// `r` is a request that has just been read, in its thread.
pub(super) unsafe fn read(r: *mut request_rec) {
    // SAFETY: as above.
    unsafe {
        if let Some(live) = live(r) {
            let head = Some(head_of(r, live));
            set_slot((*r).request_config, keep((*r).pool, head));
        }
    }
}

/// Sends the record of a request that is over.
///
/// # Safety
/// `r` is such a request, in the thread that ends it.
pub(super) unsafe fn log(r: *mut request_rec) {
    // SAFETY: as above; `read` has filled the slot.
    unsafe {
        let Some(live) = live(r) else { return };
        // A request that could not be read has not been kept.
        let head = slot::<Option<Head>>((*r).request_config).as_mut().and_then(Option::take);
        let head = head.unwrap_or_else(|| head_of(r, live));
        let record =
            conn::with((*r).connection, |connection| Record::new(head, connection, &outcome(r, connection.client())));
        if let Some(report) = live.channel.send(&record, Instant::now(), counters(), live.level) {
            super::log((*r).server, &report);
        }
    }
}

/// What the module does for the host of a request.
unsafe fn live<'a>(r: *const request_rec) -> Option<&'a Live> {
    // SAFETY: a request's server is one of httpd's.
    unsafe { host((*r).server)?.live.as_ref() }
}

unsafe fn head_of(r: *mut request_rec, live: &Live) -> Head {
    // SAFETY: a request of httpd's; its texts stay as they are for this call.
    unsafe {
        let headers = entries((*r).headers_in);
        // Without a request line there is nothing of a request.
        let has_line = bytes((*r).the_request).is_some_and(|line| !line.is_empty());
        let request = Incoming {
            method: bytes((*r).method).filter(|_| has_line),
            scheme: bytes(ap_run_http_scheme(r)),
            host: bytes(ap_get_server_name(r)),
            version: bytes((*r).protocol).filter(|_| has_line),
            target: bytes((*r).unparsed_uri),
            headers: &headers,
        };
        conn::with((*r).connection, |connection| Head::new(connection.next_request(), &request, &live.limits))
    }
}

/// Names and values of a table, in its order.
unsafe fn entries<'a>(table: *const apr_table_t) -> Vec<(&'a [u8], &'a [u8])> {
    if table.is_null() {
        return Vec::new();
    }
    // SAFETY: a table is an array of entries, whose names and values are texts; a name may be null.
    unsafe {
        let array = &*apr_table_elts(table);
        let length = usize::try_from(array.nelts).unwrap_or(0);
        if length == 0 || array.elts.is_null() {
            return Vec::new();
        }
        let entries = slice::from_raw_parts(array.elts.cast::<apr_table_entry_t>(), length);
        entries.iter().filter_map(|entry| Some((bytes(entry.key)?, bytes(entry.val).unwrap_or_default()))).collect()
    }
}

/// How a request went. After an internal redirect, such as to an error's document, the last one has the answer.
unsafe fn outcome(r: *const request_rec, client: &Endpoint) -> Outcome {
    // SAFETY: a request of httpd's, and those that follow it.
    unsafe {
        let mut last = r;
        while !(*last).next.is_null() {
            last = (*last).next;
        }
        let end_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
        let end_us = i64::try_from(end_us).unwrap_or(i64::MAX);
        let useragent = bytes((*r).useragent_ip).map(|ip| Endpoint::new(ip, 0));
        Outcome {
            begin_us: if (*r).request_time > 0 { (*r).request_time } else { end_us },
            end_us,
            status: u16::try_from((*last).status).unwrap_or(0),
            response_size: if (*last).sent_bodyct == 0 { 0 } else { u64::try_from((*last).bytes_sent).unwrap_or(0) },
            useragent_ip: useragent.filter(|ip| !ip.ip.is_empty() && ip.ip != client.ip),
        }
    }
}
