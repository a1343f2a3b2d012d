//! Serves an hour of made-up traffic, hostile names included, to look at the pages without a pipeline:
//! `cargo run -p dashboards --example serve_sample -- 127.0.0.1:8080`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, UInt8Array, UInt16Array, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use dashboards::{Limits, Service, State, Status, app, listen};
use engine::batch::{Batch, EdgeClass, EdgeType, stream_schema, time_array, time_type};
use engine::catalog::{Catalog, Table};
use engine::metrics::Metrics;

/// 2026-11-20T09:00:00Z in seconds.
const START: u64 = 1_795_165_200;

/// A kind of client: fingerprint, user agent, host, share of the requests in percent, distinct addresses.
type Client = (&'static str, &'static str, &'static str, u64, u64);

const CLIENTS: [Client; 9] = [
    (
        "t13d1516h2_8daaf6152771_d8a2da3f94cd",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
        "shop.example",
        38,
        60,
    ),
    (
        "t13d1717h2_5b57614c22b0_3cbfd9057e0d",
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "shop.example",
        17,
        31,
    ),
    (
        "t13d2014h2_a09f3c656075_7f0f34a4126d",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
        "www.example",
        11,
        22,
    ),
    ("t13d1812h1_85036bcba153_b26ce05bbdd6", "python-requests/2.32.5", "api.example", 12, 3),
    ("t13d4907h2_0d8feac7bc37_7395dae3b2f3", "curl/8.14.1", "api.example", 5, 4),
    (
        "t13d521100_b262b3658495_8e6e362c5eac",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
        "shop.example",
        8,
        2,
    ),
    (
        "t12d190800_d83cc789557e_7af1ed941c26",
        "<script>alert(document.domain)</script>",
        "<img src=x onerror=alert(1)>.example",
        4,
        1,
    ),
    (
        "t13i1515h2_8daaf6152771_de4a06bb82e3",
        "\u{202e}toBelgooG\u{202c} \u{1b}[31m\u{200b}Googlebot/2.1",
        "\u{202e}elpmaxe.bank\u{202c}",
        3,
        1,
    ),
    ("", "", "www.example", 2, 9),
];

fn requests() -> (SchemaRef, RecordBatch) {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let schema = stream_schema([
        text("src_ip"),
        text("method"),
        text("host"),
        text("path"),
        text("http_version"),
        Field::new("status_code", DataType::UInt16, true),
        Field::new("response_size", DataType::UInt64, true),
        text("header_user_agent"),
        text("ja4"),
        Field::new("correlated", DataType::UInt8, false),
        text("orphan_side"),
        text("src_as_name"),
    ]);
    let mut state = 42u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut times: Vec<i64> = (0..18_000)
        .map(|_| {
            let wave = random(1800) + random(1800);
            ((START + if random(9) == 0 { 2100 + random(240) } else { wave }) * 1_000_000_000 + random(1_000_000_000))
                as i64
        })
        .collect();
    times.sort_unstable();
    let mut rows: Vec<(&Client, u64, u64)> = Vec::new();
    for _ in &times {
        let mut at = random(100);
        let client =
            CLIENTS.iter().find(|c| at.checked_sub(c.3).map(|rest| at = rest).is_none()).unwrap_or(&CLIENTS[0]);
        rows.push((client, random(client.4), random(1000)));
    }
    let texts = |f: &dyn Fn(&(&Client, u64, u64)) -> Option<String>| {
        Arc::new(rows.iter().map(f).collect::<StringArray>()) as ArrayRef
    };
    let columns: Vec<ArrayRef> = vec![
        time_array(times),
        Arc::new(UInt64Array::from_iter_values(0..rows.len() as u64)),
        texts(&|r| Some(format!("203.0.113.{}", r.1 + r.0.3))),
        texts(&|r| Some(if r.2 % 11 == 0 { "POST" } else { "GET" }.to_owned())),
        texts(&|r| Some(r.0.2.to_owned())),
        texts(&|r| Some(if r.2 % 11 == 0 { "/login".to_owned() } else { format!("/item/{}", r.2 % 97) })),
        texts(&|r| Some(if r.0.0.contains("h2") { "HTTP/2.0" } else { "HTTP/1.1" }.to_owned())),
        Arc::new(UInt16Array::from_iter_values(rows.iter().map(|r| if r.2 % 13 == 0 { 404 } else { 200 }))),
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|r| 300 + r.2 * 17))),
        texts(&|r| (!r.0.1.is_empty()).then(|| r.0.1.to_owned())),
        texts(&|r| (!r.0.0.is_empty()).then(|| r.0.0.to_owned())),
        Arc::new(UInt8Array::from_iter_values(rows.iter().map(|r| u8::from(!r.0.0.is_empty())))),
        texts(&|r| Some(if r.0.0.is_empty() { "A" } else { "" }.to_owned())),
        texts(&|_| Some("Example Hosting".to_owned())),
    ];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns)
        .unwrap_or_else(|_| RecordBatch::new_empty(Arc::clone(&schema)));
    (schema, batch)
}

fn detections() -> (SchemaRef, RecordBatch) {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let number = |name: &str| Field::new(name, DataType::Float64, true);
    let schema = Arc::new(Schema::new(vec![
        Field::new("window_start", time_type(), false),
        text("host"),
        text("src_ip"),
        text("ja4"),
        Field::new("hits", DataType::UInt64, false),
        number("post_ratio"),
        number("fuzzing_index"),
        number("orphan_ratio"),
        number("path_diversity_ratio"),
        Field::new("final", DataType::Boolean, false),
        text("threat_level"),
        text("rules"),
        text("reason"),
        Field::new("last_seen", time_type(), false),
    ]));
    let kinds = [
        (
            "CRITICAL",
            "credential_stuffing",
            "412 POSTs to /login in the window (limit 20), 0.98 of all requests; no Accept-Language, no Referer",
            3,
        ),
        (
            "HIGH",
            "browser_spoofed, no_sec_fetch",
            "the User-Agent says Chrome 120 but the TLS stack has no GREASE, no ALPN and no Sec-CH-UA",
            5,
        ),
        ("HIGH", "path_scan", "187 distinct paths of 191 requests, 0.93 answered 404", 6),
        ("MEDIUM", "slow_crawler", "steady gaps: mean 4.0 s, standard deviation 0.05 s over 260 requests", 7),
        ("LOW", "http_library", "the fingerprint belongs to an HTTP library", 8),
    ];
    let rows: Vec<(usize, u64)> = (0..57).map(|n| ([0, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4][n % 11], n as u64)).collect();
    let client = |r: &(usize, u64)| {
        &CLIENTS[if r.1 % 9 == 4 {
            6
        } else if r.1 % 9 == 7 {
            7
        } else {
            3 + (r.1 % 3) as usize
        }]
    };
    let texts =
        |f: &dyn Fn(&(usize, u64)) -> String| Arc::new(StringArray::from_iter_values(rows.iter().map(f))) as ArrayRef;
    let floats =
        |f: &dyn Fn(u64) -> f64| Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| f(r.1)))) as ArrayRef;
    let columns: Vec<ArrayRef> = vec![
        time_array(rows.iter().map(|_| (START * 1_000_000_000) as i64).collect()),
        texts(&|r| client(r).2.to_owned()),
        texts(&|r| {
            if r.1 % 6 == 5 {
                format!("2001:db8:85a3::8a2e:370:{:x}", 0x7334 + r.1)
            } else {
                format!("203.0.113.{}", 20 + r.1)
            }
        }),
        texts(&|r| client(r).0.to_owned()),
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|r| 20 + r.1 * 37 % 900))),
        floats(&|n| n as f64 / 60.0),
        floats(&|n| 1.0 / (n + 3) as f64),
        floats(&|_| 0.0),
        floats(&|n| (n % 10) as f64 / 10.0),
        Arc::new(BooleanArray::from_iter(rows.iter().map(|r| Some(r.1 % 2 == 0)))),
        texts(&|r| kinds[r.0].0.to_owned()),
        texts(&|r| kinds[r.0].1.to_owned()),
        texts(&|r| {
            if client(r).0 == CLIENTS[6].0 {
                format!("User-Agent {} is not one of a browser", CLIENTS[6].1)
            } else {
                kinds[r.0].2.to_owned()
            }
        }),
        time_array(rows.iter().map(|r| ((START + 300 + r.1 * 53 % 3200) * 1_000_000_000) as i64).collect()),
    ];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns)
        .unwrap_or_else(|_| RecordBatch::new_empty(Arc::clone(&schema)));
    (schema, batch)
}

fn metrics(rows: u64) -> Metrics {
    let metrics = Metrics::default();
    let nodes = [
        ("packets", "source.pcap", 0, 61_204),
        ("hellos", "tls.client_hello", 61_204, 2_911),
        ("lines", "source.file", 0, rows),
        ("correlated", "correlate", rows + 2_911, rows),
        ("labelled", "enrich.asn", rows, rows),
        ("features", "aggregate", rows, 4_031),
        ("verdicts", "detect.rules", 4_031, 57),
        ("store", "sink.parquet", rows, 0),
    ];
    for (id, kind, rows_in, rows_out) in nodes {
        let node = metrics.node(id, kind);
        node.rows_in.store(rows_in, Relaxed);
        node.rows_out.store(rows_out, Relaxed);
        node.watermark.store((START + 3590) * 1000, Relaxed);
    }
    let lines = metrics.node("lines", "source.file");
    lines.rejected.store(12, Relaxed);
    lines.bytes.store(9_812_334, Relaxed);
    metrics.node("correlated", "correlate").state_rows.store(311, Relaxed);
    metrics.node("features", "aggregate").late.store(4, Relaxed);
    metrics.node("packets", "source.pcap").counter("kernel_dropped").store(3, Relaxed);
    metrics
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let (request_schema, request_rows) = requests();
    let requests = Arc::new(Table::new("requests", &EdgeType::stream(request_schema), 100_000));
    let count = request_rows.num_rows() as u64;
    requests.push(0, &Batch::new(request_rows))?;
    let (schema, rows) = detections();
    let key = ["window_start", "host", "src_ip", "ja4"].map(str::to_owned).to_vec();
    let detections =
        Arc::new(Table::new("detections", &EdgeType { schema, class: EdgeClass::Relation { key } }, 100_000));
    detections.push(0, &Batch::new(rows))?;
    let status = Arc::new(Status::new());
    status.set(State::Running);
    let service = Service {
        catalog: Arc::new(Catalog::new(vec![requests, detections])),
        metrics: Arc::new(metrics(count)),
        status,
        limits: Limits::default(),
        name: "sample".to_owned(),
        graph: "flowchart LR\n  packets --> hellos --> correlated\n  lines --> correlated --> labelled --> features --> verdicts\n  labelled --> store\n".to_owned(),
    };
    let listener = tokio::net::TcpListener::bind(&address).await?;
    listen(listener, app(service)?, std::future::pending()).await?;
    Ok(())
}
