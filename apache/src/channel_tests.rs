use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::config::Limits;
use crate::connection::{Connection, Endpoint};
use crate::record::{Head, Incoming, Outcome};

const SECOND: Duration = Duration::from_secs(1);

/// A folder of the test's own, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("reqin-log-{}-{name}", std::process::id()));
        _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).expect("a new folder");
        Self(path)
    }

    fn channel(&self) -> Channel {
        let interval = 10 * SECOND;
        let socket = self.0.join("s");
        Channel::new(Target { socket, reconnect_interval: interval, error_report_interval: interval })
    }

    fn receiver(&self) -> UnixDatagram {
        _ = std::fs::remove_file(self.0.join("s"));
        let socket = UnixDatagram::bind(self.0.join("s")).expect("a new socket");
        socket.set_nonblocking(true).expect("a socket");
        socket
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

fn record(target: &[u8]) -> Record {
    let request =
        Incoming { method: None, scheme: None, host: None, version: None, target: Some(target), headers: &[] };
    let limits = Limits { headers: vec![], max_headers: 0, max_header_value_len: 1 };
    let connection = Connection::new(Endpoint::default(), &Endpoint::default());
    let outcome = Outcome { begin_us: 0, end_us: 0, status: 200, response_size: 0, useragent_ip: None };
    Record::new(Head::new(1, &request, &limits), &connection, &outcome)
}

fn received(socket: &UnixDatagram) -> Option<String> {
    let mut buffer = vec![0; 1 << 18];
    let length = socket.recv(&mut buffer).ok()?;
    Some(String::from_utf8(buffer[..length].to_vec()).expect("UTF-8"))
}

/// Numbers of [`Counters`] that are not zero.
fn counted(counters: &Counters) -> Vec<(&'static str, u64)> {
    counters.all().into_iter().filter(|(_, number)| *number > 0).collect()
}

#[test]
fn an_absent_socket_is_tried_once_an_interval() {
    let (folder, counters) = (Folder::new("absent"), Counters::default());
    let (channel, start) = (folder.channel(), Instant::now());
    let first = channel.send(&record(b"/"), start, &counters, Level::Debug).expect("a report");
    assert_eq!(first.level, Level::Error);
    assert!(first.text.starts_with("1 records for ") && first.text.contains("nobody receives there"), "{}", first.text);
    let receiver = folder.receiver();
    // Still within the interval.
    let second = channel.send(&record(b"/"), start + 9 * SECOND, &counters, Level::Debug).expect("a message");
    assert_eq!((second.level, received(&receiver)), (Level::Debug, None));
    let third = channel.send(&record(b"/"), start + 10 * SECOND, &counters, Level::Debug).expect("connected");
    assert_eq!(third.level, Level::Info);
    assert!(received(&receiver).expect("sent").contains("\"lost_before\":2"));
    assert_eq!(channel.send(&record(b"/"), start + 10 * SECOND, &counters, Level::Debug), None);
    assert!(!received(&receiver).expect("sent").contains("lost_before"));
    assert_eq!(counted(&counters), [("Sent", 2), ("LostUnreachable", 2)]);
    assert!(channel.last_report().expect("one was not reported").text.starts_with("1 records lost"));
    assert_eq!(channel.last_report(), None);
}

#[test]
fn a_receiver_that_was_started_again_is_found_at_once() {
    let (folder, counters) = (Folder::new("again"), Counters::default());
    let (channel, start) = (folder.channel(), Instant::now());
    let first = folder.receiver();
    channel.send(&record(b"/"), start, &counters, Level::Debug);
    drop(first);
    let second = folder.receiver();
    channel.send(&record(b"/"), start, &counters, Level::Debug);
    assert!(received(&second).is_some());
    drop(second);
    assert_eq!(channel.send(&record(b"/"), start, &counters, Level::Debug).expect("a report").level, Level::Error);
    assert_eq!(counted(&counters), [("Sent", 2), ("LostUnreachable", 1)]);
}

#[test]
fn a_full_queue_loses_what_comes_and_waits_for_nobody() {
    let (folder, counters) = (Folder::new("full"), Counters::default());
    let (channel, start) = (folder.channel(), Instant::now());
    let receiver = folder.receiver();
    let mut reports = Vec::new();
    while counters.lost_full.load(Relaxed) < 5 {
        reports.extend(channel.send(&record(b"/"), start, &counters, Level::Debug));
    }
    let errors: Vec<&Report> = reports.iter().filter(|report| report.level == Level::Error).collect();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].text.contains("queue is full"), "{}", errors[0].text);
    let later = channel.send(&record(b"/"), start + 10 * SECOND, &counters, Level::Debug).expect("a report");
    assert!(later.text.starts_with("5 records for "), "{}", later.text);
    let mut sent = 0;
    while received(&receiver).is_some() {
        sent += 1;
    }
    assert_eq!(sent, counters.sent.load(Relaxed));
    channel.send(&record(b"/"), start, &counters, Level::Debug);
    assert!(received(&receiver).expect("sent").contains("\"lost_before\":6"));
}

#[test]
fn a_long_record_is_sent_cut() {
    let (folder, counters) = (Folder::new("long"), Counters::default());
    let (channel, start) = (folder.channel(), Instant::now());
    let receiver = folder.receiver();
    let target = vec![b'a'; 1 << 20];
    channel.send(&record(&target), start, &counters, Level::Debug);
    let text = received(&receiver).expect("sent");
    assert!(text.len() <= MAX_RECORD && text.ends_with("\"truncated\":\"path\"}"), "{}", text.len());
    assert_eq!(counted(&counters), [("Sent", 1), ("Cut", 1)]);
}
