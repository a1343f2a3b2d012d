//! Readers that go over from copies to what goes on: each row once, at whatever moment.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, UInt64Type};
use proptest::prelude::*;
use timely::scheduling::Activations;

use super::*;

/// A tap's input: the same rows for a copy and for what goes on, given at their own pace.
struct Giver<'r> {
    tap: Rc<RefCell<Tap>>,
    rows: &'r [Time],
    given: Vec<bool>,
    passed: Time,
}

impl<'r> Giver<'r> {
    fn new(rows: &'r [Time]) -> Self {
        Self { tap: Rc::default(), rows, given: vec![false; rows.len()], passed: 0 }
    }

    /// Gives all that is before a time, and of what is behind it every third row, as workers do that are ahead of others.
    fn advance(&mut self, to: Time) {
        self.passed = self.passed.max(to);
        let mut arrived = Vec::new();
        for (row, (time, given)) in self.rows.iter().zip(&mut self.given).enumerate() {
            if !*given && (*time < self.passed || row % 3 == 0 && *time < self.passed.saturating_add(9)) {
                *given = true;
                arrived.push((*time, numbered(row)));
            }
        }
        self.tap.borrow_mut().give(&mut arrived, self.passed);
    }
}

fn numbered(row: usize) -> Batch {
    let schema = Arc::new(Schema::new(vec![Field::new("row", DataType::UInt64, false)]));
    let column = Arc::new(UInt64Array::from(vec![row as u64]));
    Batch::new(RecordBatch::try_new(schema, vec![column]).expect("one column"))
}

/// An input's step to its end.
const LAST: Time = 12;

/// A reader and what came out of it.
struct Taken {
    reading: Reading,
    passed: Time,
    rows: Vec<u64>,
}

impl Taken {
    fn take(&mut self) -> Result<(), TestCaseError> {
        let mut out = Vec::new();
        let passed = self.reading.take(&mut out);
        prop_assert!(passed >= self.passed, "time goes back");
        for (time, batch) in out {
            prop_assert!(time >= self.passed, "a row of {time} after {} was passed", self.passed);
            self.rows.push(batch.rows.column(0).as_primitive::<UInt64Type>().value(0));
        }
        self.passed = passed;
        Ok(())
    }
}

/// Two inputs of a new stage: what each is given in `steps`, and when they are to listen and to go over.
fn cross(
    rows: &[Vec<Time>; 2],
    steps: &[(usize, bool, Time)],
    attach: usize,
    copies: bool,
) -> Result<(), TestCaseError> {
    let activations = Rc::new(RefCell::new(Activations::new(None)));
    let activator = || Activator::new(Rc::from([0usize]), Rc::clone(&activations));
    let seams: [Arc<Seam>; 2] = Default::default();
    seams.iter().for_each(|seam| seam.add_input());
    let mut givers: Vec<[Giver<'_>; 2]> = rows.iter().map(|rows| [Giver::new(rows), Giver::new(rows)]).collect();
    let mut readers: Vec<Taken> = givers
        .iter()
        .zip(&seams)
        .map(|([copy, stage], seam)| {
            let queue = copies.then(|| copy.tap.borrow_mut().listen(activator()).0);
            let tap = Some(Rc::clone(&stage.tap));
            let crossing = Crossing {
                seam: Arc::clone(seam),
                tap,
                activator: Some(activator()),
                listened: None,
                is_all: queue.is_none(),
            };
            Taken { reading: Reading { queue, crossing: Some(crossing), floor: 0 }, passed: 0, rows: Vec::new() }
        })
        .collect();
    let mut boundaries = [None; 2];
    for (nth, &(which, copy, by)) in steps.iter().enumerate() {
        let giver = &mut givers[which][usize::from(!copy)];
        // Some inputs end early.
        giver.advance(if by == LAST { CLOSED } else { giver.passed.saturating_add(by) });
        if nth == attach {
            seams.iter().for_each(|seam| seam.attach());
        }
        readers[which].take()?;
        for (seam, boundary) in seams.iter().zip(&mut boundaries) {
            if boundary.is_none() && seam.is_attached(1) {
                *boundary = Some(seam.choose());
            }
        }
    }
    seams.iter().for_each(|seam| seam.attach());
    readers.iter_mut().try_for_each(Taken::take)?;
    let boundaries = [0, 1].map(|at| boundaries[at].unwrap_or_else(|| seams[at].choose()));
    givers.iter_mut().flatten().for_each(|giver| giver.advance(CLOSED));
    for ((reader, rows), boundary) in readers.iter_mut().zip(rows).zip(boundaries) {
        reader.take()?;
        prop_assert_eq!(reader.passed, CLOSED);
        reader.rows.sort_unstable();
        let all = rows.iter().zip(0..).filter(|(time, _)| copies || **time >= boundary).map(|(_, row)| row);
        prop_assert_eq!(&reader.rows, &all.collect::<Vec<u64>>(), "boundary {}", boundary);
    }
    prop_assert!(seams.iter().all(|seam| seam.is_crossed(1)));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(17), ..ProptestConfig::default() })]

    #[test]
    fn each_row_comes_once_whenever_a_reader_goes_over(
        first in prop::collection::vec(0u64..60, 0..40),
        second in prop::collection::vec(0u64..60, 0..40),
        steps in prop::collection::vec((0usize..2, any::<bool>(), 0..=LAST), 0..40),
        attach in 0usize..40,
        copies in any::<bool>(),
    ) {
        cross(&[first, second], &steps, attach, copies)?;
    }
}
