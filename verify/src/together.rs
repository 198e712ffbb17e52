//! A step that runs as one kernel against its launches one by one: on the same state, what both leave in
//! caches and io must be the same bits.

use crate::check::{Checked, Compared, Machine, keep_worst};
use crate::report::Element;
use crate::{Subject, VerifyError};
use waveloom_plan::{BufferId, PersistentStep, Plan, Segment};

/// The persistent step of a program, if the loaded plan runs it so.
pub fn persistent<'p>(
    subject: &Subject<'p>,
    machine: &Machine<'_>,
    program: usize,
) -> Option<&'p PersistentStep> {
    let step = subject.plan.persistent.as_ref().filter(|step| step.program == program)?;
    // A notice says that it runs launch by launch after all.
    machine.loaded.notice().is_none().then_some(step)
}

/// What the step as one kernel leaves, by buffer; the state is as before when this returns.
pub struct Whole(Vec<(BufferId, Vec<u8>)>);

impl Whole {
    /// Runs a program as the plan does, and takes it back.
    pub fn run(machine: &mut Machine<'_>, program: usize) -> Result<Whole, VerifyError> {
        let before = contents(machine)?;
        machine.loaded.run(program, &machine.symbols)?;
        let left = contents(machine)?;
        for (buffer, bytes) in &before {
            if *buffer == machine.plan.decode_loop.history {
                let words: Vec<u32> =
                    bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
                machine.loaded.write(*buffer, 0, &words)?;
            } else {
                machine.loaded.write_bytes(*buffer, 0, bytes)?;
            }
        }
        Ok(Whole(left))
    }

    /// Compares it with what there is now, after the launches ran one by one.
    pub fn compare(self, machine: &mut Machine<'_>) -> Result<Checked, VerifyError> {
        let logits = machine.plan.decode_loop.logits;
        let now = contents(machine)?;
        let pairs = self.0.into_iter().zip(now);
        let results = pairs.map(|((buffer, whole), (_, launches))| {
            compare(buffer, &whole, &launches, buffer == logits)
        });
        Ok(Checked { results: results.collect(), inputs: vec![], operation: None })
    }
}

/// The bytes of everything that outlives a step.
fn contents(machine: &mut Machine<'_>) -> Result<Vec<(BufferId, Vec<u8>)>, VerifyError> {
    let plan: &Plan = machine.plan;
    let mut contents = vec![];
    for (id, buffer) in plan.buffers.iter().enumerate() {
        if !matches!(buffer.segment, Segment::State | Segment::Io) {
            continue;
        }
        let bytes = buffer.bytes.eval(&machine.symbols).and_then(|n| usize::try_from(n).ok());
        let bytes = bytes.ok_or(VerifyError::NotOfModule("a buffer of it has no size"))?;
        // The history is memory of the host on a GPU, and has words only.
        if id == plan.decode_loop.history {
            let words = machine.loaded.read(id, 0..bytes / 4)?;
            contents.push((id, words.iter().flat_map(|word| word.to_le_bytes()).collect()));
            continue;
        }
        let mut content = vec![0; bytes];
        machine.loaded.read_bytes(id, 0, &mut content)?;
        contents.push((id, content));
    }
    Ok(contents)
}

/// Compares words: those of logits are f32, all others are shown as integers.
fn compare(buffer: BufferId, found: &[u8], exact: &[u8], reals: bool) -> Compared {
    let value = |word: &[u8; 4]| match reals {
        true => f64::from(f32::from_le_bytes(*word)),
        false => f64::from(u32::from_le_bytes(*word)),
    };
    let words = found.as_chunks().0.iter().zip(exact.as_chunks().0);
    let of = words.len() as u64;
    let mut compared =
        Compared { buffer, wrong: 0, of, absolute: 0.0, relative: 0.0, worst: vec![] };
    for (index, (found, exact)) in (0..).zip(words).filter(|(_, (a, b))| a != b) {
        let (found, exact) = (value(found), value(exact));
        let error = (found - exact).abs();
        compared.wrong += 1;
        compared.absolute = compared.absolute.max(error);
        keep_worst(
            &mut compared.worst,
            Element { index: vec![index], found, exact, error, bound: 0.0 },
        );
    }
    compared
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_differ_are_counted_and_shown() {
        let bytes = |words: &[f32]| words.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
        let (a, b) = (bytes(&[1.0, 2.0, 3.0]), bytes(&[1.0, 2.5, 3.0]));
        let same = compare(3, &a, &a, true);
        assert_eq!((same.wrong, same.of, same.worst.len()), (0, 3, 0));
        let wrong = compare(3, &a, &b, true);
        assert_eq!((wrong.buffer, wrong.wrong, wrong.absolute), (3, 1, 0.5));
        assert_eq!((wrong.worst[0].index[0], wrong.worst[0].exact), (1, 2.5));
        assert!(wrong.worst[0].is_wrong());
    }
}
