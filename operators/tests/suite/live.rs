//! Sources that do not end by themselves.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine::shared::Shared;
use engine::time::wall_clock_ns;
use serde_json::Value;

use super::replay::{collected, load, run_with};
use super::sources::{column, fault, pipeline, rows};

/// A pipeline that runs in a thread.
struct Running {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    names: Vec<String>,
}

impl Running {
    fn start(dir: &Path, options: &str, ports: &[&str]) -> Self {
        let (yaml, names) = pipeline(options, ports);
        let plan = load(&dir.join("p.yaml"), &yaml).expect("valid");
        assert!(!plan.is_bounded());
        let shared = Arc::new(Shared::new(&plan));
        let run = Arc::clone(&shared);
        Self { shared, thread: std::thread::spawn(move || run_with(plan, 2, &run, |_, _| {})), names }
    }

    /// Waits until `n` rows and rejected lines have left the source.
    fn wait(&self, n: u64) {
        let node = self.shared.metrics.node("s", "");
        until(|| node.rows_out.load(Relaxed) + node.rejected.load(Relaxed) >= n);
    }

    fn stop(self) -> Vec<Vec<Value>> {
        self.shared.stop();
        self.thread.join().expect("ends");
        self.names.iter().map(|name| rows(&collected(name))).collect()
    }
}

fn until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn request(port: u16) -> String {
    format!("{{\"timestamp\":{},\"src_ip\":\"192.0.2.1\",\"src_port\":{port}}}", wall_clock_ns())
}

#[test]
fn a_followed_file_may_be_rotated_and_truncated() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("log");
    let append = |text: &str| {
        let mut file = OpenOptions::new().create(true).append(true).open(&path).expect("opened");
        file.write_all(text.as_bytes()).expect("written");
    };
    let running = Running::start(
        dir.path(),
        "kind: source.file, path: log, format: reqin_log, follow: true",
        &["out", "rejected"],
    );
    let node = running.shared.metrics.node("s", "");
    until(|| node.watermark.load(Relaxed) > 1_700_000_000_000);
    let half = request(2);
    append(&format!("{}\n{}", request(1), &half[..20]));
    running.wait(1);
    append(&format!("{}\nbroken\n", &half[20..]));
    running.wait(3);
    std::fs::rename(&path, dir.path().join("log.1")).expect("renamed");
    append(&format!("{}\n", request(3)));
    running.wait(4);
    std::fs::write(&path, "").expect("truncated");
    // Shorter than what was there: the byte is only read once the truncation has been seen.
    let bytes = node.bytes.load(Relaxed);
    append("\n");
    until(|| node.bytes.load(Relaxed) > bytes);
    append(&format!("{}\n", request(4)));
    running.wait(5);
    let ports = running.stop();
    assert_eq!(column(&ports[0], "src_port"), ["1", "2", "3", "4"]);
    assert_eq!(column(&ports[1], "line"), ["broken"]);
}

#[test]
fn datagrams_become_rows_and_the_file_goes_with_the_source() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("sock");
    drop(UnixDatagram::bind(&path).expect("bound: a socket that nobody reads stays behind"));
    let options = "kind: source.unix_socket, path: sock, format: reqin_log, mode: \"0600\", max_line: 1000";
    let running = Running::start(dir.path(), options, &["out", "rejected"]);
    let sender = UnixDatagram::unbound().expect("made");
    until(|| sender.connect(&path).is_ok());
    let node = running.shared.metrics.node("s", "");
    until(|| node.watermark.load(Relaxed) > 1_700_000_000_000);
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    for port in 0..2000 {
        let text = match port {
            7 => "{".to_owned(),
            8 => format!("{}\n{}\n\n", request(port), request(port)),
            9 => "x".repeat(5000),
            10 => format!("<190>Nov 23 15:35:27 host nginx: {}", request(port)),
            11 => format!("\0{}\0", request(port)),
            _ => request(port),
        };
        sender.send(text.as_bytes()).expect("sent");
    }
    running.wait(2001);
    let before = node.watermark.load(Relaxed);
    until(|| node.watermark.load(Relaxed) > before + 200);
    assert!(fault(dir.path(), "kind: source.unix_socket, path: p.yaml, format: reqin_log").contains("is not a socket"));
    assert!(
        fault(dir.path(), "kind: source.unix_socket, path: s2, format: reqin_log, mode: rw")
            .contains("not a permission")
    );
    let second = Running::start(dir.path(), "kind: source.unix_socket, path: sock, format: reqin_log", &["out"]);
    until(|| second.shared.failure().is_some());
    assert!(format!("{:?}", second.shared.failure()).contains("in use by another process"));
    second.stop();
    let ports = running.stop();
    assert_eq!((ports[0].len(), ports[1].len()), (1999, 2));
    assert!(!path.exists());
}

#[test]
fn what_has_been_received_is_read_when_the_source_stops() {
    let dir = tempfile::tempdir().expect("a directory");
    let running = Running::start(dir.path(), "kind: source.unix_socket, path: sock, format: reqin_log", &["out"]);
    let sender = UnixDatagram::unbound().expect("made");
    until(|| sender.connect(dir.path().join("sock")).is_ok());
    for port in 0..300 {
        sender.send(request(port).as_bytes()).expect("sent");
    }
    assert_eq!(running.stop()[0].len(), 300);
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let running = Running::start(dir.path(), "kind: source.pcap, interface: looo", &["out"]);
    until(|| running.shared.failure().is_some());
    let text = format!("{:?}", running.shared.failure());
    // Without CAP_NET_RAW libpcap does not get far enough to see that the interface is missing.
    assert!(text.contains("no interface looo") || text.contains("no permission to capture on looo"), "{text}");
    running.stop();
}

/// Needs root or CAP_NET_RAW; without, it only checks that the message says so.
#[test]
fn packets_are_captured_live() {
    let dir = tempfile::tempdir().expect("a directory");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("bound");
    let options = format!("kind: source.pcap, interface: lo, ports: [{}]", address.port());
    let running = Running::start(dir.path(), &options, &["out"]);
    let node = running.shared.metrics.node("s", "");
    until(|| node.watermark.load(Relaxed) > 0 || running.shared.failure().is_some());
    if let Some(failure) = running.shared.failure() {
        assert!(format!("{failure:?}").contains("cap_net_raw+ep"), "{failure:?}");
        running.stop();
        return;
    }
    let mut client = std::net::TcpStream::connect(address).expect("connected");
    client.write_all(b"hello").expect("sent");
    running.wait(4);
    let packets = running.stop();
    assert!(packets[0].iter().all(|packet| packet["late"] == false && packet["linktype"] == 1));
}
