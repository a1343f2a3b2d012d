//! Taking damage out of a log, so that it is reported once.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use crate::SpoolError;
use crate::format::{Frame, Header, Kind, Ports};
use crate::inspect::{Report, Segments, Whole};
use crate::lock::lock_dir;
use crate::segment::Summary;

/// Writes damaged segments again without what is damaged. Each is replaced at once; the positions of what is lost stay
/// unused. Returns what was wrong.
///
/// # Errors
/// If a process has the log open, or if a file cannot be read or written. Segments before it are repaired then.
pub fn repair(log: &Path) -> Result<Report, SpoolError> {
    let _lock = lock_dir(log)?;
    let files = Segments::list(log)?;
    let mut report = Report::default();
    for (number, (_, path)) in files.list.iter().enumerate() {
        let (faults, unfinished) = (report.faults.len(), report.unfinished);
        files.walk(number, &mut report, &mut |_| Ok(()))?;
        if (faults, unfinished) != (report.faults.len(), report.unfinished) {
            rewrite(&files, number, path)?;
        }
    }
    Ok(report)
}

fn rewrite(files: &Segments, number: usize, path: &Path) -> Result<(), SpoolError> {
    let Some(segment) = files.open(path)? else { return Ok(()) };
    let first = files.list[number].0;
    let empty = || Ports::new(&[]).map(Arc::new).map_err(SpoolError::Schema);
    let header = match segment.header {
        Some(header) => header,
        None => {
            // Its records say by their frames which of the other segments' schemas they have: they all have the same.
            let mut ports = None;
            files.walk(number, &mut Report::default(), &mut |item| {
                if let Whole::Rows(frame, ..) = item {
                    ports = files.ports(None, frame.ports);
                }
                Ok(())
            })?;
            let ports = ports.map_or_else(empty, Ok)?;
            Header { mark: files.mark.unwrap_or(*b"repaired"), first, skipped_from: first, watermark: 0, ports }
        }
    };
    let temporary = path.with_extension("repair");
    let write = || -> io::Result<Result<(), SpoolError>> {
        let mut out = io::BufWriter::new(File::create(&temporary)?);
        out.write_all(&header.encode())?;
        let mut summary = Summary::new(first);
        let mut failed = None;
        let walked = files.walk(number, &mut Report::default(), &mut |item| {
            let (frame, body) = match item {
                Whole::Record(frame, body) => (*frame, body.as_slice()),
                Whole::Lost(from, to) if from < to => {
                    (Frame { time: to, ..Frame::bare(Kind::Gap, from) }, [].as_slice())
                }
                Whole::Lost(..) | Whole::Rows(..) => return Ok(()),
            };
            summary.add(&frame);
            if let Err(error) = out.write_all(&frame.encode(&header.mark)).and_then(|()| out.write_all(body)) {
                failed.get_or_insert(error);
            }
            Ok(())
        });
        if let Err(error) = walked {
            return Ok(Err(error));
        }
        failed.map_or(Ok(()), Err)?;
        out.write_all(&summary.seal(&header.mark))?;
        out.into_inner().map_err(|error| error.into_error())?.sync_all()?;
        fs::rename(&temporary, path)?;
        if let Some(dir) = path.parent() {
            File::open(dir)?.sync_all()?;
        }
        Ok(Ok(()))
    };
    let done = write().map_err(SpoolError::io(path)).and_then(|done| done);
    if done.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    done
}
