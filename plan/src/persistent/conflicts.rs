//! Which launches of a program must not change places.

use crate::layout::Layout;
use crate::plan::{Arg, BufferId, Launch, Plan};
use crate::verify::PlanError;

/// For each of `launches`, the earlier ones that it must wait for, latest first, without those that
/// follow: a launch that waits for all of another waits for all that the other waited for.
///
/// Two launches conflict when they name the same byte and one of them writes it, at any of the
/// context lengths at which the plan is verified. All arguments count as read. Scratch is one buffer
/// that is written by all that name it.
pub fn dependences(plan: &Plan, launches: &[Launch]) -> Result<Vec<Vec<usize>>, PlanError> {
    let conflicts = Conflicts { layouts: plan.sample_layouts()? };
    let mut reached: Vec<Vec<bool>> = vec![];
    let mut direct = vec![];
    for (index, launch) in launches.iter().enumerate() {
        let (mut reach, mut first) = (vec![false; index], vec![]);
        for earlier in (0..index).rev() {
            if reach[earlier] || conflicts.between(&launches[earlier], launch).is_none() {
                continue;
            }
            first.push(earlier);
            reach[earlier] = true;
            for (all, of_earlier) in reach.iter_mut().zip(&reached[earlier]) {
                *all |= of_earlier;
            }
        }
        reached.push(reach);
        direct.push(first);
    }
    Ok(direct)
}

/// What two launches share that one of them writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shared {
    /// A byte of these buffers of the first and of the second.
    Buffers(BufferId, BufferId),
    /// Scratch.
    Scratch,
}

/// Finds conflicts.
pub(super) struct Conflicts {
    pub layouts: Vec<Layout>,
}

impl Conflicts {
    /// Why `a` and `b` must not change places, if they must not.
    pub fn between(&self, a: &Launch, b: &Launch) -> Option<Shared> {
        if a.args.contains(&Arg::Scratch) && b.args.contains(&Arg::Scratch) {
            return Some(Shared::Scratch);
        }
        let written = a.writes.iter().flat_map(|&x| buffers(b).map(move |y| (x, y)));
        let read = b.writes.iter().flat_map(|&y| buffers(a).map(move |x| (x, y)));
        let mut pairs = written.chain(read);
        pairs.find(|&(x, y)| self.overlap(x, y)).map(|(x, y)| Shared::Buffers(x, y))
    }

    fn overlap(&self, x: BufferId, y: BufferId) -> bool {
        x == y
            || self.layouts.iter().any(|layout| {
                match (layout.buffers.get(x), layout.buffers.get(y)) {
                    (Some(x), Some(y)) => x.overlaps(y),
                    _ => false,
                }
            })
    }
}

/// The buffers among a launch's arguments.
fn buffers(launch: &Launch) -> impl Iterator<Item = BufferId> {
    launch.args.iter().filter_map(|arg| match arg {
        Arg::Buffer(id) => Some(*id),
        Arg::Scalar(_) | Arg::Scratch => None,
    })
}
