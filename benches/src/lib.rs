//! What the benchmarks in `benches/` and the programs in `examples/` share. `run.sh` measures the whole job.

pub mod events;
pub mod join;
pub mod memory;
pub mod process;
pub mod ticks;
