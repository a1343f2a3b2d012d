//! Several processes of a cluster, each in threads of its own, over 127.0.0.1.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arrow::array::{Array as _, ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema};
use engine::batch::Batch;
use engine::cluster::{Cluster, ConnectError, Connected, Event, Hosts, HostsError, Monitor, Running};
use parking_lot::Mutex;
use timely::WorkerConfig;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::operator::{Operator as _, source};
use timely::execute::execute_from;

const PLAN: [u8; 32] = [7; 32];
const SOON: Duration = Duration::from_secs(20);
const WORKERS: usize = 2;

/// Ports that nobody uses now.
fn ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

fn hosts(ports: &[u16]) -> Hosts {
    let text: String = ports.iter().map(|port| format!("127.0.0.1:{port}\n")).collect();
    Hosts::parse("hosts", &text).unwrap()
}

fn cluster(ports: &[u16], process: usize) -> Cluster {
    Cluster::new(hosts(ports), process, WORKERS).unwrap()
}

fn connecting(cluster: Cluster, digest: [u8; 32], timeout: Duration) -> JoinHandle<Result<Connected, ConnectError>> {
    thread::spawn(move || cluster.connect(digest, timeout, &|| false))
}

fn all_connected(ports: &[u16]) -> Vec<Connected> {
    let threads: Vec<_> = (0..ports.len()).map(|k| connecting(cluster(ports, k), PLAN, SOON)).collect();
    threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect()
}

/// What a process of a test did.
#[derive(Debug)]
struct Outcome {
    /// How many of its own rows arrived at each of its workers.
    rows: Vec<u64>,
    ended: Result<(), Event>,
}

struct Process {
    events: mpsc::Receiver<Event>,
    aborted: Arc<AtomicBool>,
    monitor: Arc<Monitor>,
    thread: JoinHandle<Outcome>,
}

/// Runs a dataflow in which each worker sends `batches` batches to each worker.
fn run(connected: Connected, batches: u64) -> Process {
    let aborted = Arc::new(AtomicBool::new(false));
    let (noted, events) = mpsc::channel();
    let (noted, abort) = (Mutex::new(noted), Arc::clone(&aborted));
    let on_event = move |event: &Event| {
        if matches!(event, Event::Lost(_) | Event::Silent(_) | Event::Failed(..)) {
            abort.store(true, SeqCst);
        }
        let _ = noted.lock().send(event.clone());
    };
    let Running { builders, others, monitor } = connected.start(on_event).unwrap();
    let (abort, watch) = (Arc::clone(&aborted), Arc::clone(&monitor));
    let thread = thread::spawn(move || {
        let config = WorkerConfig::default();
        let guards = execute_from(builders, others, config, move |worker| work(worker, batches, &abort)).unwrap();
        let rows = guards.join().into_iter().map(Result::unwrap).collect();
        Outcome { rows, ended: watch.finish() }
    });
    Process { events, aborted, monitor, thread }
}

fn work(worker: &mut timely::worker::Worker, batches: u64, aborted: &AtomicBool) -> u64 {
    let rows = std::rc::Rc::new(std::cell::Cell::new(0));
    let (count, peers) = (std::rc::Rc::clone(&rows), worker.peers() as u64);
    worker.dataflow::<u64, _, _>(|scope| {
        let sent = source::<_, CapacityContainerBuilder<Vec<Batch>>, _, _>(scope, "send", |capability, info| {
            let (activator, mut capability, mut sent) = (scope.activator_for(info.address), Some(capability), 0);
            move |output| {
                if sent == batches {
                    capability = None;
                }
                let Some(capability) = capability.as_mut() else { return };
                for route in 0..peers {
                    output.session(&capability).give(Batch { route, ..batch(sent) });
                }
                sent += 1;
                capability.downgrade(&sent);
                activator.activate();
            }
        });
        let exchange = Exchange::new(|batch: &Batch| batch.route);
        let received = sent.unary::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(exchange, "receive", move |_, _| {
            move |input, output| {
                input.for_each_stamp(|time, data| {
                    for batch in data.flat_map(|batches| batches.drain(..)) {
                        count.set(count.get() + checked(&batch));
                        output.session(&time).give(batch);
                    }
                });
            }
        });
        received.sink(Pipeline, "end", |(input, _)| input.for_each_stamp(|_, data| data.for_each(drop)));
    });
    while worker.has_dataflows() && !aborted.load(SeqCst) {
        worker.step_or_park(Some(Duration::from_millis(10)));
    }
    for dataflow in worker.installed_dataflows() {
        worker.drop_dataflow(dataflow);
    }
    rows.get()
}

fn batch(number: u64) -> Batch {
    let text: StringArray = (0..100).map(|row| (row % 3 > 0).then(|| format!("{number}.{row}"))).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(UInt64Array::from_iter_values(number..number + 100)), Arc::new(text)];
    let fields = vec![Field::new("n", DataType::UInt64, false), Field::new("text", DataType::Utf8, true)];
    Batch::new(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap())
}

fn checked(received: &Batch) -> u64 {
    let numbers: &UInt64Array = received.rows.column(0).as_any().downcast_ref().unwrap();
    assert_eq!(received.rows, batch(numbers.value(0)).rows);
    numbers.len() as u64
}

/// Passes on what comes to its port until it is cut.
struct Proxy {
    port: u16,
    sockets: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    fn new(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let sockets: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let kept = Arc::clone(&sockets);
        thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let Ok(far) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                kept.lock().extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
                for (mut from, mut to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                    thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Write);
                    });
                }
            }
        });
        Self { port, sockets }
    }

    /// Cuts the connections that it has.
    fn cut(&self) {
        for socket in self.sockets.lock().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

#[test]
fn every_row_arrives_and_all_processes_end_well() {
    let ports = ports(3);
    let processes: Vec<_> = all_connected(&ports).into_iter().map(|connected| run(connected, 50)).collect();
    for process in processes {
        let outcome = process.thread.join().unwrap();
        assert_eq!(outcome.ended, Ok(()));
        assert_eq!(outcome.rows, [6 * 50 * 100; WORKERS], "from six workers");
    }
}

#[test]
fn a_cut_connection_ends_both_processes_at_any_moment() {
    for wait in [0, 1, 10, 50] {
        let ports = ports(2);
        let proxy = Proxy::new(ports[0]);
        let first = connecting(cluster(&ports, 0), PLAN, SOON);
        let second = connecting(cluster(&[proxy.port, ports[1]], 1), PLAN, SOON);
        let processes = [first, second].map(|thread| run(thread.join().unwrap().unwrap(), u64::MAX));
        // Some progress, other each time; that there is none yet is a case as well.
        let cut = Instant::now() + Duration::from_millis(wait);
        while Instant::now() < cut {
            thread::yield_now();
        }
        proxy.cut();
        let ended = processes.map(|process| process.thread.join().unwrap().ended.expect_err("lost"));
        let shown = ended.map(|event| event.to_string());
        let second = format!("process 1 (127.0.0.1:{}) was lost: start all processes again", ports[1]);
        let first = format!("process 0 (127.0.0.1:{}) was lost: start all processes again", proxy.port);
        assert_eq!(shown, [second, first]);
    }
}

#[test]
fn a_lost_process_is_named_by_all_others() {
    let ports = ports(3);
    let mut connected = all_connected(&ports);
    let lost = connected.remove(1);
    let survivors: Vec<_> = connected.into_iter().map(|connected| run(connected, u64::MAX)).collect();
    drop(lost);
    for survivor in survivors {
        let event = survivor.thread.join().unwrap().ended.expect_err("lost");
        assert!(matches!(&event, Event::Lost(peer) if peer.process == 1), "{event:?}");
    }
}

#[test]
fn a_failure_is_told_with_its_message() {
    let ports = ports(3);
    let mut processes: Vec<_> = all_connected(&ports).into_iter().map(|connected| run(connected, u64::MAX)).collect();
    let failed = processes.remove(2);
    failed.monitor.fail("s: the disk is\x1b full");
    failed.aborted.store(true, SeqCst);
    for process in processes {
        let shown = process.thread.join().unwrap().ended.expect_err("failed").to_string();
        assert_eq!(shown, format!("process 2 (127.0.0.1:{}) failed: s: the disk is\u{fffd} full", ports[2]));
    }
    failed.thread.join().unwrap();
}

#[test]
fn notes_and_the_wish_to_stop_reach_the_others() {
    let ports = ports(2);
    let processes: Vec<_> = all_connected(&ports).into_iter().map(|connected| run(connected, 10)).collect();
    processes[0].monitor.tell(b"a note").unwrap();
    processes[0].monitor.stop();
    assert!(processes[0].monitor.tell(&[0; 70_000]).is_err());
    let events = &processes[1].events;
    assert!(matches!(events.recv_timeout(SOON), Ok(Event::Told(peer, note)) if peer.process == 0 && note == b"a note"));
    assert!(matches!(events.recv_timeout(SOON), Ok(Event::Stopped(peer)) if peer.process == 0));
    for process in processes {
        assert_eq!(process.thread.join().unwrap().ended, Ok(()));
    }
}

#[test]
fn a_missing_process_is_named_when_the_time_is_over() {
    let ports = ports(3);
    let limit = Duration::from_millis(300);
    let (first, third) = (connecting(cluster(&ports, 0), PLAN, limit), connecting(cluster(&ports, 2), PLAN, limit));
    let shown = [first, third].map(|thread| thread.join().unwrap().expect_err("missing").to_string());
    let missing = format!("process 1 (127.0.0.1:{})", ports[1]);
    assert_eq!(shown[0], format!("waited 0.3 s in vain for {missing}: has not called"));
    assert!(shown[1].starts_with(&format!("waited 0.3 s in vain for {missing}: Connection refused")), "{shown:?}");
}

#[test]
fn a_process_that_comes_again_while_others_are_waited_for_is_met() {
    let ports = ports(3);
    let first = connecting(cluster(&ports, 0), PLAN, SOON);
    let early = connecting(cluster(&ports, 1), PLAN, Duration::from_millis(300));
    assert!(matches!(early.join().unwrap(), Err(ConnectError::Missing { .. })));
    let others = [1, 2].map(|k| connecting(cluster(&ports, k), PLAN, SOON));
    for thread in others.into_iter().chain([first]) {
        assert!(thread.join().unwrap().is_ok());
    }
}

/// Makes a process that differs.
type Other = dyn Fn(&[u16]) -> (Cluster, [u8; 32]);

#[test]
fn processes_that_differ_refuse_each_other() {
    let both = |other: &Other| {
        let ports = ports(2);
        let (other, plan) = other(&ports);
        let threads = [connecting(cluster(&ports, 0), PLAN, SOON), connecting(other, plan, SOON)];
        threads.map(|thread| match thread.join().unwrap() {
            Err(ConnectError::Differs(shown)) => shown,
            other => panic!("{other:?}"),
        })
    };
    for shown in both(&|ports| (cluster(ports, 1), [8; 32])) {
        assert!(shown.contains("runs another pipeline"), "{shown}");
    }
    for shown in both(&|ports| (Cluster::new(hosts(ports), 1, 3).unwrap(), PLAN)) {
        assert!(shown.contains("give all processes the same number"), "{shown}");
    }
    for shown in both(&|ports| (cluster(&[ports[0], ports[1], 1], 1), PLAN)) {
        assert!(shown.contains("give all processes the same hosts file"), "{shown}");
    }
}

#[test]
fn a_number_that_is_taken_is_refused() {
    let all = ports(4);
    let first = connecting(cluster(&all[..3], 0), PLAN, SOON);
    let second = connecting(cluster(&all[..3], 1), PLAN, SOON);
    // The same number at another address: it connects to process 0 only if it is first.
    let twin = cluster(&[all[0], all[3], all[2]], 1).connect(PLAN, Duration::from_millis(500), &|| false);
    let shown = twin.expect_err("taken or alone").to_string();
    assert!(shown.contains(&format!("process 2 (127.0.0.1:{})", all[2])), "{shown}");
    let third = connecting(cluster(&all[..3], 2), PLAN, SOON);
    for thread in [first, second, third] {
        assert!(thread.join().unwrap().is_ok());
    }
}

#[test]
fn strangers_neither_stop_a_start_nor_delay_it_for_long() {
    let ports = ports(2);
    let first = connecting(cluster(&ports, 0), PLAN, SOON);
    let mut strangers = Vec::new();
    let start = Instant::now();
    while strangers.len() < 40 {
        assert!(start.elapsed() < SOON, "process 0 listens");
        let Ok(mut stranger) = TcpStream::connect(("127.0.0.1", ports[0])) else { continue };
        match strangers.len() % 4 {
            0 => stranger.write_all(&[0xff; 200]).unwrap(),
            1 => stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap(),
            2 => stranger.shutdown(Shutdown::Both).unwrap(),
            _ => {}
        }
        strangers.push(stranger);
    }
    assert!(matches!(strangers[0].read(&mut [0]), Ok(0) | Err(_)), "the connection was closed");
    let second = connecting(cluster(&ports, 1), PLAN, SOON);
    assert!(first.join().unwrap().is_ok() && second.join().unwrap().is_ok());
}

#[test]
fn a_start_can_be_cancelled_and_an_address_in_use_is_named() {
    let ports = ports(2);
    let cancelled = cluster(&ports, 0).connect(PLAN, SOON, &|| true);
    assert_eq!(cancelled.expect_err("cancelled"), ConnectError::Cancelled);
    let _used = TcpListener::bind(("127.0.0.1", ports[0])).unwrap();
    let shown = cluster(&ports, 0).connect(PLAN, SOON, &|| false).expect_err("in use").to_string();
    assert!(shown.starts_with(&format!("127.0.0.1:{}: cannot listen there: ", ports[0])), "{shown}");
}

#[test]
fn a_process_that_the_file_does_not_name_is_refused() {
    let shown = Cluster::new(hosts(&[1, 2]), 2, 1).expect_err("no line").to_string();
    assert_eq!(shown, "hosts: no process 2: the file names the processes 0 to 1");
    assert!(matches!(Hosts::load("no such file".as_ref()), Err(HostsError::Unreadable { .. })));
}
