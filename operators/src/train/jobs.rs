//! Models are made on a thread of their own, judged by rows that are kept back, and written as a whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};

use engine::contract::NodeMetrics;
use engine::files;

use super::sample::Row;
use crate::forest::split::{GATE_LIMIT, Gate, temporal_split};
use crate::forest::{Forest, Matrix, Options as Growing, train};

/// What makes models of rows.
#[derive(Clone)]
pub(super) struct Jobs {
    pub path: PathBuf,
    /// Of the features.
    pub names: Vec<String>,
    pub min_rows: usize,
    pub growing: Growing,
    /// How many earlier models stay.
    pub keep: usize,
    pub metrics: Arc<NodeMetrics>,
    /// One is being made.
    pub is_busy: Arc<AtomicBool>,
}

/// A model is being made until this is dropped, also by a panic.
struct Busy(Arc<AtomicBool>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, SeqCst);
    }
}

/// The share of rows by which a forest is trained; it is judged by the others, which are later.
const TRAINING: f64 = 0.8;

impl Jobs {
    /// Whether one is being made.
    pub fn is_busy(&self) -> bool {
        self.is_busy.load(SeqCst)
    }

    /// Waits for the one that is being made, so that it does not come behind the next.
    pub fn wait(&self) {
        while self.is_busy() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Makes a model on a thread of its own: it takes seconds, and rows go on.
    pub fn start(&self, rows: Vec<Row>) {
        self.is_busy.store(true, SeqCst);
        let (jobs, busy) = (self.clone(), Busy(Arc::clone(&self.is_busy)));
        let thread = std::thread::Builder::new().name("train".into()).spawn(move || {
            let _busy = busy;
            jobs.make(&rows);
        });
        if let Err(error) = thread {
            self.metrics.set_trouble("model", Some(format!("there is no thread to train a model: {error}")));
        }
    }

    /// Makes a model of rows, and says what became of it.
    pub fn make(&self, rows: &[Row]) {
        let outcome = self.model(rows).and_then(|forest| {
            self.write(&forest).map_err(|error| format!("the model {} cannot be written: {error}", self.path.display()))
        });
        match outcome {
            Ok(()) => {
                self.metrics.counter("trained").fetch_add(1, Relaxed);
                self.metrics.set_trouble("model", None);
                tracing::info!(model = %self.path.display(), rows = rows.len(), "trained");
            }
            Err(why) => {
                tracing::warn!(model = %self.path.display(), "no new model: {why}");
                self.metrics.set_trouble("model", Some(why));
            }
        }
    }

    /// A forest that has passed the gate.
    fn model(&self, rows: &[Row]) -> Result<Forest, String> {
        if rows.len() < self.min_rows {
            return Err(format!(
                "the baseline has {} rows of the {} that a model needs: rules alone decide",
                rows.len(),
                self.min_rows
            ));
        }
        let times: Vec<i64> = rows.iter().map(|row| i64::try_from(row.time).unwrap_or(i64::MAX)).collect();
        let clients: Vec<u64> = rows.iter().map(|row| row.client).collect();
        let mut split = temporal_split(&times, Some(&clients), TRAINING);
        if split.held_back.is_empty() {
            // The same clients come all the time: they are judged by what they do later.
            split = temporal_split(&times, None, TRAINING);
        }
        let of =
            |numbers: &[usize]| -> Vec<f32> { numbers.iter().flat_map(|n| rows[*n].values.iter().copied()).collect() };
        let between = split.training.iter().map(|n| times[*n]);
        let between = between.clone().min().zip(between.max());
        let options = Growing { between, ..self.growing.clone() };
        let forest = train(&of(&split.training), &self.names, &options).map_err(|error| error.to_string())?;
        let held_back = of(&split.held_back);
        let decisions = forest.decision_function(Matrix::Rows { values: &held_back, width: self.names.len() });
        let gate = Gate::of(&decisions.map_err(|error| error.to_string())?);
        if gate.rate().is_some() && !gate.passes(GATE_LIMIT) {
            self.metrics.counter("refused_models").fetch_add(1, Relaxed);
            let Gate { anomalies, rows } = gate;
            return Err(format!("a new model calls {anomalies} of {rows} held-back rows unusual: the last one stays"));
        }
        Ok(forest)
    }

    /// Replaces the model, durably; a copy stays beside it.
    fn write(&self, forest: &Forest) -> io::Result<()> {
        let content = forest.to_json()?;
        files::make_dirs(folder(&self.path))?;
        if self.keep > 0 {
            let last = forest.origin().between.map_or(0, |(_, last)| last);
            let last = chrono::DateTime::from_timestamp_millis(last).unwrap_or_default();
            write_whole(&self.kept_path(&last.format("%Y%m%dT%H%M%SZ").to_string()), &content)?;
            self.forget_old()?;
        }
        write_whole(&self.path, &content)
    }

    /// `model.json` is kept as `model-TIME.json`.
    fn kept_path(&self, time: &str) -> PathBuf {
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        self.path.with_file_name(format!("{stem}-{time}.json"))
    }

    /// Removes the oldest copies beyond those that are kept.
    fn forget_old(&self) -> io::Result<()> {
        let begin = format!("{}-", self.path.file_stem().unwrap_or_default().to_string_lossy());
        // Times in names are in their order.
        let is_copy = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let time = name.strip_prefix(&begin).and_then(|rest| rest.strip_suffix("Z.json"));
            time.is_some_and(|time| time.len() == 15 && time.bytes().all(|byte| byte.is_ascii_digit() || byte == b'T'))
        };
        let entries = fs::read_dir(folder(&self.path))?.collect::<io::Result<Vec<_>>>()?;
        let mut copies: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).filter(is_copy).collect();
        copies.sort();
        let gone = copies.len().saturating_sub(self.keep);
        copies[..gone].iter().try_for_each(fs::remove_file)
    }
}

/// The folder that a file is in.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a file, old or new, never a part of it.
fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("json.tmp");
    let mut file = files::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder(path))?.sync_all()
}
