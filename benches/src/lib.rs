//! Holds the package of the benchmarks, which are `benches/stations.rs` (criterion) and `run.sh` (the whole job).
