//! A shadow of global memory within one launch: who accessed each word, and what orders them.
//!
//! Two accesses of different waves to the same bytes, one of them a write, are ordered by a barrier
//! if the waves are of one workgroup; across workgroups by a release of the first workgroup after
//! its access (a wait that drains stores, or an atomic) that precedes an acquire of the second (a
//! cache invalidation, or an atomic that returns). Every release and acquire counts, whatever flag
//! it was about: some races are missed, and what is reported is one. Accesses at device scope, by
//! which flags are polled, race with nothing.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Mistake, Sink, lanes, writes};
use crate::memory::Memory;
use crate::probe::{Access, Kind};

/// Bytes of a word of the shadow.
const WORD: u64 = 4;

/// Who accesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who {
    /// Number of the workgroup, from 1.
    pub group: u32,
    /// Wave in it.
    pub wave: u32,
    /// Barriers that its workgroup has passed.
    pub barriers: u32,
}

/// A past access.
#[derive(Clone, Copy)]
struct Past {
    who: Who,
    /// Bytes of the word, one bit each.
    bytes: u8,
    /// Releases of the workgroup before the access.
    releases: u32,
    /// An atomic, or at device scope.
    coherent: bool,
}

#[derive(Clone, Copy, Default)]
struct Word {
    write: Option<Past>,
    reads: [Option<Past>; 2],
}

#[derive(Default)]
struct GroupClock {
    /// When this workgroup released.
    releases: Vec<u64>,
    /// When it last acquired.
    acquired: u64,
}

/// The shadow of one launch.
#[derive(Default)]
pub struct GlobalShadow {
    words: HashMap<u64, Word>,
    groups: HashMap<u32, GroupClock>,
    now: u64,
}

impl GlobalShadow {
    /// A workgroup begins.
    pub fn start_group(&mut self, group: u32) {
        self.groups.insert(group, GroupClock::default());
    }

    /// A workgroup makes its writes visible.
    pub fn release(&mut self, group: u32) {
        self.now += 1;
        let now = self.now;
        self.groups.entry(group).or_default().releases.push(now);
    }

    /// A workgroup makes others' writes visible to itself.
    pub fn acquire(&mut self, group: u32) {
        self.now += 1;
        let now = self.now;
        self.groups.entry(group).or_default().acquired = now;
    }

    /// Checks an access and records it.
    pub fn access(
        &mut self,
        access: &Access<'_>,
        who: Who,
        coherent: bool,
        memory: &Arc<Memory>,
        sink: &mut Sink<'_>,
    ) {
        let coherent = coherent || access.kind == Kind::Atomic;
        for lane in lanes(access.lanes) {
            let first = access.addresses[lane];
            let Some(end) = first.checked_add(u64::from(access.bytes)) else { continue };
            check_initialized(access, lane, memory, sink);
            let mut address = first;
            while address < end {
                let word = address / WORD;
                let stop = end.min((word + 1) * WORD);
                let bytes = (address..stop).fold(0, |mask, byte| mask | 1 << (byte % WORD)) as u8;
                let releases = self.groups.get(&who.group).map_or(0, |g| g.releases.len() as u32);
                let past = Past { who, bytes, releases, coherent };
                self.touch(word, past, access.kind, lane as u32, sink);
                address = stop;
            }
        }
    }

    fn touch(&mut self, at: u64, present: Past, kind: Kind, lane: u32, sink: &mut Sink<'_>) {
        let entry = self.words.get(&at).copied().unwrap_or_default();
        let mut conflict = |past: Option<Past>, done: &'static str| {
            let Some(past) = past else { return };
            if self.races(&past, &present) {
                let who = past.who;
                let what = format!(
                    "{:#x} was {done} by wave {} of the launch's workgroup {} and nothing orders the two",
                    at * WORD,
                    who.wave,
                    who.group
                );
                sink.report(Mistake::GlobalRace, Some(lane), || what);
            }
        };
        conflict(entry.write, "written");
        if writes(kind) {
            entry.reads.into_iter().for_each(|read| conflict(read, "read"));
        }
        let word = self.words.entry(at).or_default();
        if writes(kind) {
            word.write = Some(present);
        } else {
            // The last two different readers.
            if word.reads[0].is_some_and(|read| read.who != present.who) {
                word.reads[1] = word.reads[0];
            }
            word.reads[0] = Some(present);
        }
    }

    fn races(&self, past: &Past, present: &Past) -> bool {
        let (a, b) = (past.who, present.who);
        if past.bytes & present.bytes == 0 || past.coherent || present.coherent {
            return false;
        }
        if a.group == b.group && (a.wave == b.wave || a.barriers != b.barriers) {
            return false;
        }
        let released = self
            .groups
            .get(&a.group)
            .and_then(|group| group.releases.get(past.releases as usize).copied());
        let acquired = self.groups.get(&b.group).map_or(0, |group| group.acquired);
        released.is_none_or(|released| released > acquired)
    }
}

fn check_initialized(access: &Access<'_>, lane: usize, memory: &Arc<Memory>, sink: &mut Sink<'_>) {
    let (first, bytes) = (access.addresses[lane], u64::from(access.bytes));
    if access.kind != Kind::Store
        && let Some(unwritten) = memory.first_unwritten(first, bytes)
    {
        sink.report(Mistake::UninitializedGlobal, Some(lane as u32), || {
            let place = memory.find(unwritten).map_or(String::new(), |allocation| {
                let offset = unwritten - allocation.base;
                format!(", byte {offset:#x} of {} ({} bytes)", allocation.name, allocation.size)
            });
            format!("{unwritten:#x}{place}")
        });
    }
    if writes(access.kind) {
        memory.mark_written(first, bytes);
    }
}
