//! What the program did not ask for and its author did: mistakes that checks found, statistics.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use waveloom_emulator::check::{Mistake, Report};
use waveloom_emulator::stats::Statistics;

use crate::backend::{Memory, Options};
use crate::error::note;
use crate::handle::lock;

/// Tells mistakes on stderr, the same one at the same instruction once in the life of the process.
pub fn tell(reports: &[Report]) {
    static TOLD: Mutex<BTreeSet<(Mistake, u64)>> = Mutex::new(BTreeSet::new());
    for report in reports {
        if lock(&TOLD).insert((report.mistake, report.address)) {
            note(&report.to_string());
        }
    }
}

/// Statistics that are written when the process ends, and where to.
static STATISTICS: OnceLock<(Arc<Statistics>, PathBuf)> = OnceLock::new();

/// Options of the environment: those of the emulator, and `WAVELOOM_EMU_STATS`.
pub fn options(memory: &Memory) -> Options {
    let mut options = Options::from_env();
    if options.check {
        memory.track_writes();
    }
    if let Some(path) = std::env::var_os("WAVELOOM_EMU_STATS") {
        let statistics = Arc::new(Statistics::default());
        options.observers.push(statistics.clone());
        if STATISTICS.set((statistics, path.into())).is_ok() {
            // SAFETY: the function is of this library, which is never unloaded (see `build.rs`).
            unsafe { libc::atexit(write_statistics) };
        }
    }
    options
}

extern "C" fn write_statistics() {
    let Some((statistics, path)) = STATISTICS.get() else { return };
    if let Err(error) = statistics.write(path) {
        note(&format!("WAVELOOM_EMU_STATS: {}: {error}", path.display()));
    }
}
