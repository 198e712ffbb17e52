//! Why a persistent step must not run.

use super::{MAX_FLAGS, MAX_PREFETCHES, MAX_WAITS, PERSISTENT_VERSION};
use crate::verify::PlanError;
use std::fmt;
use thiserror::Error;

/// An instruction, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its stream.
    pub stream: usize,
    /// Its place in it.
    pub index: usize,
    /// Its launch, with the kernel's name.
    pub launch: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {}, instruction {} ({})", self.stream, self.index, self.launch)
    }
}

/// Why a persistent step must not run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PersistentError {
    /// Of another version.
    #[error(
        "the persistent step has version {0}, this program knows {PERSISTENT_VERSION}: recompile the model"
    )]
    Version(u32),
    /// An index out of range.
    #[error("{place} names {kind} {index}, but there are {count}")]
    Index {
        /// What names it.
        place: String,
        /// What it should be.
        kind: &'static str,
        /// The index.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// No stream.
    #[error("the persistent step has no stream")]
    NoStream,
    /// A grid that is not known when the plan is made.
    #[error("{0}: its grid is not a positive constant below 2^31")]
    Grid(String),
    /// An argument that differs between steps.
    #[error("{0}: an argument depends on more than the context length")]
    Argument(String),
    /// A kernel whose workgroups have another size.
    #[error(
        "kernel `{body}` has workgroups of {found} work-items, the persistent kernel of {expected}"
    )]
    Workgroup {
        /// The kernel.
        body: String,
        /// Its work-items.
        found: u32,
        /// Those of the persistent kernel.
        expected: u32,
    },
    /// A launch whose kernel is not in the persistent kernel.
    #[error("{launch} has no opcode: the persistent kernel lacks its code")]
    NoBody {
        /// The launch.
        launch: String,
    },
    /// A limit of the format.
    #[error("{place}: more than {limit} {what}")]
    TooMany {
        /// Where.
        place: String,
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// An instruction without workgroups, or with more than its launch has.
    #[error("{place}: runs workgroups {first}..{end} of {grid}")]
    Range {
        /// The instruction.
        place: Place,
        /// The first workgroup.
        first: u64,
        /// One past the last.
        end: u64,
        /// The launch's workgroups.
        grid: u64,
    },
    /// A workgroup that runs twice.
    #[error("workgroup {workgroup} of {launch} runs twice: {first} and {second}")]
    Twice {
        /// The launch.
        launch: String,
        /// The workgroup.
        workgroup: u64,
        /// Where it runs.
        first: Place,
        /// Where it runs again.
        second: Place,
    },
    /// A workgroup that does not run.
    #[error("workgroup {workgroup} of {launch} never runs")]
    Never {
        /// The launch.
        launch: String,
        /// The workgroup.
        workgroup: u64,
    },
    /// A prefetch of what is not there.
    #[error("{place}: prefetches what is not a range of constants, in units of 16 bytes")]
    Prefetch {
        /// The instruction.
        place: Place,
    },
    /// A flag that is counted too far.
    #[error("flag {flag}: the signals of a step add {total}, more than 2^30")]
    FlagTotal {
        /// The flag.
        flag: u32,
        /// What the signals add.
        total: u64,
    },
    /// Streams that wait for each other, or for what never comes.
    #[error(
        "deadlock: {place} waits for {value} on flag {flag}, which gets to {reached}; {blocked} streams are stuck"
    )]
    Deadlock {
        /// The first instruction that is stuck.
        place: Place,
        /// The flag.
        flag: u32,
        /// What it waits for.
        value: u64,
        /// Where the flag stays.
        reached: u64,
        /// Streams that do not end.
        blocked: usize,
    },
    /// An order of launches that nothing ensures.
    #[error("{place} may begin before {before} has ended, and both use {shared}")]
    Dependence {
        /// The later one.
        place: Place,
        /// The one that it must follow.
        before: Place,
        /// What they share.
        shared: String,
    },
    /// Nothing is known of the kernel's needs.
    #[error("nothing is known of the registers of the persistent kernel `{0}`")]
    NoFacts(String),
    /// More workgroups than are on the chip at once.
    #[error(
        "{streams} streams, but the chip holds {resident} workgroups of `{kernel}` at once ({units} units, {per_unit} on each): streams that wait for one that is not there never end"
    )]
    Resident {
        /// The kernel.
        kernel: String,
        /// Streams.
        streams: usize,
        /// Workgroups that fit.
        resident: u64,
        /// Units of the chip.
        units: u32,
        /// Workgroups on each.
        per_unit: u32,
    },
    /// More LDS than there is.
    #[error("the persistent kernel needs {needed} bytes of LDS, a unit has {available}")]
    Lds {
        /// What it needs.
        needed: u32,
        /// What there is.
        available: u32,
    },
    /// The plan is wrong in itself.
    #[error(transparent)]
    Plan(#[from] Box<PlanError>),
}

impl PersistentError {
    pub(super) fn waits(place: &Place) -> PersistentError {
        PersistentError::TooMany { place: place.to_string(), what: "waits", limit: MAX_WAITS }
    }

    pub(super) fn prefetches(place: &Place) -> PersistentError {
        let (what, limit) = ("prefetches", MAX_PREFETCHES);
        PersistentError::TooMany { place: place.to_string(), what, limit }
    }

    pub(super) fn flags() -> PersistentError {
        let limit = MAX_FLAGS as usize;
        PersistentError::TooMany { place: "the persistent step".into(), what: "flags", limit }
    }
}
