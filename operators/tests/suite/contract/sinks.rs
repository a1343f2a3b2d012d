//! Sinks: what is written is each row once.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread::JoinHandle;

use arrow::array::RecordBatch;
use arrow::json::LineDelimitedWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::node::{Net, Run, add, same};
use super::{CUTS, WORKERS, cases, is_sink};
use crate::replay::run;

/// A row's values by name as text; both ways to write a time are one, and null is like nothing.
fn canonical(row: Value) -> String {
    let Value::Object(row) = row else { panic!("{row}") };
    let value = |(name, value): (String, Value)| {
        let time = value.as_str().filter(|_| ["time", "begin_time", "window_start"].contains(&name.as_str()));
        let ns = time.map(|text| chrono::DateTime::parse_from_rfc3339(text).expect("a time").timestamp_nanos_opt());
        (!value.is_null()).then(|| (name, ns.map_or(value, Value::from)))
    };
    let values: BTreeMap<String, Value> = row.into_iter().filter_map(value).collect();
    serde_json::to_string(&values).expect("text")
}

/// Lines as rows; `diff` of a line says how often.
pub(super) fn net_of<'a>(lines: impl IntoIterator<Item = &'a str>) -> Net {
    let mut net = Net::new();
    for line in lines {
        let mut row: Value = serde_json::from_str(line).expect("a line is a JSON object");
        let diff =
            row.as_object_mut().and_then(|row| row.remove("diff")).map_or(1, |diff| diff.as_i64().expect("diff"));
        add(&mut net, canonical(row), diff);
    }
    net.retain(|_, count| *count != 0);
    net
}

/// Arrow's own lines of rows.
fn arrow_lines(rows: &RecordBatch) -> String {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write(rows).expect("rows can be written");
    String::from_utf8(writer.into_inner()).expect("text")
}

/// Takes datagrams until one says `end`.
fn receive(path: &Path) -> JoinHandle<String> {
    let socket = UnixDatagram::bind(path).expect("bound");
    std::thread::spawn(move || {
        let (mut buffer, mut all) = (vec![0; 1 << 16], String::new());
        loop {
            let len = socket.recv(&mut buffer).expect("received");
            match std::str::from_utf8(&buffer[..len]).expect("text") {
                "end" => return all,
                line => all.push_str(&format!("{line}\n")),
            }
        }
    })
}

/// What is in the Parquet files beneath a folder, as lines.
fn parquet_lines(dir: &Path) -> String {
    let mut text = String::new();
    for path in std::fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            text += &parquet_lines(&path);
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            let file = std::fs::File::open(path).expect("there");
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet").build().expect("readable");
            text.extend(reader.map(|rows| arrow_lines(&rows.expect("readable"))));
        }
    }
    text
}

#[test]
fn a_sink_has_each_row_once_at_any_number_of_workers_and_in_any_batches() {
    for case in cases(is_sink) {
        for (workers, cut) in WORKERS.into_iter().flat_map(|workers| CUTS.map(|cut| (workers, cut))) {
            let mut received = String::new();
            let run = Run::with(case, cut, workers, |dir, plan| {
                let receiver = receive(&dir.join("out"));
                let shared = run(plan, workers);
                let end = UnixDatagram::unbound().expect("made");
                end.send_to(b"end", dir.join("out")).expect("sent");
                received = receiver.join().expect("no panic");
                shared
            });
            run.check();
            let text = match case.kind {
                "sink.jsonl" => std::fs::read_to_string(run.dir.path().join("new/out.jsonl")).expect("the file"),
                "sink.unix_socket" => received,
                "sink.parquet" => parquet_lines(&run.dir.path().join("data")),
                kind => panic!("say where {kind} writes"),
            };
            let (mut expected, changes) = (Net::new(), case.options.contains("changes"));
            for batch in &run.input.as_ref().expect("one input").batches {
                let is_written = changes || batch.settled && batch.diff > 0;
                let text = arrow_lines(&batch.rows);
                for line in text.lines().filter(|_| is_written) {
                    add(&mut expected, canonical(serde_json::from_str(line).expect("JSON")), batch.diff.into());
                }
            }
            expected.retain(|_, count| *count != 0);
            assert!(expected.len() > 20 && expected.values().all(|count| *count == 1), "{case:?}");
            let what = format!("{} ({}), {workers} workers, batches of {cut}", case.kind, case.options);
            same(&net_of(text.lines()), &expected, &what);
        }
    }
}
