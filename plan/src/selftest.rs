//! The self-test that an artifact carries: a prompt, the tokens that follow it, and digests of what
//! every launch must leave behind, with how far a correct kernel may be from them.
//!
//! A digest of a vector is its norm and its products with a few vectors of random signs. A vector that
//! is off by e has products off by about |e|, whatever the direction of e, so a handful of numbers
//! stands for thousands. Nothing here knows what is computed: the compiler says which launch leaves
//! which value where, and what it is called.

use crate::plan::{BufferId, Plan};
use crate::synthetic::scatter;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;

/// Version of the section's content.
pub const SELF_TEST_VERSION: u32 = 1;

/// Products of a digest.
pub const PROJECTIONS: usize = 4;

/// What an artifact says about how it must compute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelfTest {
    /// [`SELF_TEST_VERSION`].
    pub version: u32,
    /// The prompt as text, where the tokenizer is in the artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The prompt, two tokens at least: all but the last go through prefill, the last through decode.
    pub tokens: Vec<u32>,
    /// Of the signs.
    pub seed: u64,
    /// The token after each of the two steps.
    pub choices: [Choice; 2],
    /// Values, by the order in which they are computed.
    pub probes: Vec<Probe>,
    /// Where each target has them.
    pub targets: BTreeMap<String, TargetTest>,
}

/// The most probable token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// The token.
    pub token: u32,
    /// By how much its logit is above the next.
    pub margin: f32,
    /// By how much that may be off: where the margin is no larger, another token may be right.
    pub tolerance: f32,
}

impl Choice {
    /// Whether a correct computation has no choice.
    pub fn is_certain(&self) -> bool {
        self.margin > self.tolerance
    }
}

/// A value of the computation: of the last position of each step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// The layer that it belongs to; empty where it is of none.
    pub layer: String,
    /// Its name.
    pub value: String,
    /// Its elements.
    pub width: u64,
    /// Expected after prefill and after decode.
    pub digests: [Digest; 2],
}

/// A vector in a few numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Digest {
    /// Its Euclidean norm.
    pub norm: f32,
    /// Its products with vectors of signs.
    pub projections: [f32; PROJECTIONS],
    /// How far each of these numbers may be off, relative to the norm.
    pub tolerance: f32,
}

impl Digest {
    /// Of a vector; `tolerance` is whoever's who expects it.
    pub fn of(values: impl Iterator<Item = f64>, seed: u64, tolerance: f32) -> Digest {
        let (mut square, mut sums) = (0.0, [0.0; PROJECTIONS]);
        for (index, x) in values.enumerate() {
            let signs = mix(seed ^ mix(index as u64));
            square += x * x;
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum += if signs >> j & 1 == 0 { x } else { -x };
            }
        }
        Digest { norm: square.sqrt() as f32, projections: sums.map(|sum| sum as f32), tolerance }
    }

    /// How far `found` is off at most, relative to the norm of what is expected; infinite where it is
    /// no number.
    pub fn deviation(&self, found: &Digest) -> f32 {
        let pairs = self.projections.iter().zip(&found.projections);
        let errors = pairs.map(|(a, b)| (a - b).abs()).chain([(self.norm - found.norm).abs()]);
        let worst = errors.fold(0.0, |a: f32, e| if e.is_nan() { f32::INFINITY } else { a.max(e) });
        if worst == 0.0 { 0.0 } else { worst / self.norm.abs().max(f32::MIN_POSITIVE) }
    }
}

/// A step of SplitMix64.
fn mix(x: u64) -> u64 {
    scatter(x.wrapping_add(0x9e37_79b9_7f4a_7c15))
}

/// Where a target has what is probed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetTest {
    /// Which elements of a buffer make a value, at a context of as many positions as there are tokens.
    pub views: Vec<View>,
    /// What is looked at in prefill and in decode, by launch.
    pub places: [Vec<Place>; 2],
}

/// A value that a launch leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[usize; 4]", into = "[usize; 4]")]
pub struct Place {
    /// Index of the launch in its program.
    pub launch: usize,
    /// Index into [`SelfTest::probes`].
    pub probe: usize,
    /// The buffer.
    pub buffer: BufferId,
    /// Index into [`TargetTest::views`].
    pub view: usize,
}

impl From<[usize; 4]> for Place {
    fn from([launch, probe, buffer, view]: [usize; 4]) -> Place {
        Place { launch, probe, buffer, view }
    }
}

impl From<Place> for [usize; 4] {
    fn from(place: Place) -> [usize; 4] {
        [place.launch, place.probe, place.buffer, place.view]
    }
}

/// Elements of a buffer, in the order of the value's elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct View {
    /// What an element is.
    pub element: Element,
    /// First element, how many, and how far apart.
    pub runs: Vec<[u64; 3]>,
}

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Element {
    /// Four bytes.
    F32,
    /// Two bytes.
    F16,
}

impl Element {
    /// Its size.
    pub fn bytes(self) -> u64 {
        match self {
            Element::F32 => 4,
            Element::F16 => 2,
        }
    }
}

impl View {
    /// A view of elements at these places, which are compressed to runs.
    pub fn new(element: Element, places: impl Iterator<Item = u64>) -> View {
        let mut runs: Vec<[u64; 3]> = vec![];
        for at in places {
            match runs.last_mut() {
                Some([first, count @ 1, stride]) if at > *first => {
                    (*count, *stride) = (2, at - *first)
                }
                Some([first, count, stride]) if at == *first + *count * *stride => *count += 1,
                _ => runs.push([at, 1, 1]),
            }
        }
        View { element, runs }
    }

    /// Where its elements are.
    pub fn places(&self) -> impl Iterator<Item = u64> + '_ {
        let run = |&[first, count, stride]: &[u64; 3]| (0..count).map(move |i| first + i * stride);
        self.runs.iter().flat_map(run)
    }

    /// Number of elements, and the bytes from the buffer's start that they lie in; `None` where that is
    /// beyond all bounds.
    fn extent(&self) -> Option<(u64, u64)> {
        let (mut elements, mut end) = (0u64, 0u64);
        for [first, count, stride] in &self.runs {
            let last = count.checked_sub(1)?.checked_mul(*stride)?.checked_add(*first)?;
            elements = elements.checked_add(*count)?;
            end = end.max(last.checked_add(1)?);
        }
        Some((elements, end.checked_mul(self.element.bytes())?))
    }

    /// Bytes from the buffer's start that its elements lie in.
    pub fn bytes(&self) -> u64 {
        self.extent().map_or(0, |(_, bytes)| bytes)
    }
}

/// A self-test that cannot be run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SelfTestError {
    /// Not JSON, or not of this form.
    #[error("it is not readable: {0}")]
    Json(#[from] serde_json::Error),
    /// Another version.
    #[error("it has version {found}, this program knows {SELF_TEST_VERSION}: recompile the model")]
    Version {
        /// Its version.
        found: u32,
    },
    /// It names what the plan does not have.
    #[error("it does not fit the plan for {target}: {problem}")]
    Plan {
        /// The target.
        target: String,
        /// What does not fit.
        problem: String,
    },
}

impl SelfTest {
    /// Reads a section.
    pub fn from_json(json: &[u8]) -> Result<SelfTest, SelfTestError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version: found } = serde_json::from_slice(json)?;
        if found != SELF_TEST_VERSION {
            return Err(SelfTestError::Version { found });
        }
        Ok(serde_json::from_slice(json)?)
    }

    /// The section's bytes.
    pub fn to_json(&self) -> Vec<u8> {
        // Numbers, text and arrays of them always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What is there for a plan's target, once everything that it names is known to be there.
    pub fn target(&self, plan: &Plan) -> Result<&TargetTest, SelfTestError> {
        let target = || plan.target.clone();
        let bad = |problem: String| SelfTestError::Plan { target: target(), problem };
        let test =
            self.targets.get(&plan.target).ok_or_else(|| bad("it has no such target".into()))?;
        let context = u32::try_from(self.tokens.len()).unwrap_or(u32::MAX);
        let prefill = plan.model.prefill_chunk.min(plan.model.max_context);
        if !(2..=prefill).contains(&context) || self.tokens.iter().any(|t| *t >= plan.model.vocab) {
            return Err(bad("its prompt is not one of the model".into()));
        }
        let layout = plan.layout(context).map_err(|error| bad(error.to_string()))?;
        let walk = &plan.decode_loop;
        for (program, places) in [walk.prefill, walk.decode].into_iter().zip(&test.places) {
            let launches = plan.programs[program].launches.len();
            for place in places {
                let buffer = layout.buffers.get(place.buffer);
                let probe = self.probes.get(place.probe);
                let extent = test.views.get(place.view).and_then(View::extent);
                let fits = match (buffer, probe, extent) {
                    (Some(buffer), Some(probe), Some((elements, bytes))) => {
                        let room = bytes <= buffer.bytes && elements <= buffer.bytes;
                        room && elements == probe.width && place.launch < launches
                    }
                    _ => false,
                };
                if !fits {
                    let [launch, probe, ..] = <[usize; 4]>::from(*place);
                    return Err(bad(format!("probe {probe} at launch {launch}")));
                }
            }
        }
        Ok(test)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toy;

    fn digest(values: &[f64]) -> Digest {
        Digest::of(values.iter().copied(), 7, 0.0)
    }

    #[test]
    fn a_digest_shows_every_change_and_its_size() {
        let values: Vec<f64> = (0..300).map(|i| (f64::from(i) * 0.37).sin()).collect();
        let whole = digest(&values);
        assert_eq!(whole.deviation(&whole), 0.0);
        let norm = values.iter().map(|x| x * x).sum::<f64>().sqrt();
        for at in 0..values.len() {
            let mut changed = values.clone();
            changed[at] += 0.1 * norm;
            let deviation = whole.deviation(&digest(&changed));
            assert!((0.099..0.101).contains(&deviation), "{at}: {deviation}");
        }
        // A permutation, and a change of sign, which keep the norm.
        let swapped: Vec<f64> = values.iter().rev().copied().collect();
        assert!(whole.deviation(&digest(&swapped)) > 0.1);
        let negated: Vec<f64> = values.iter().map(|x| -x).collect();
        assert!(whole.deviation(&digest(&negated)) > 0.1);
        let broken = digest(&[f64::NAN]);
        assert_eq!(whole.deviation(&broken), f32::INFINITY);
        assert_eq!(digest(&[0.0]).deviation(&digest(&[0.0])), 0.0);
    }

    #[test]
    fn views_are_runs() {
        let view = |places: &[u64]| View::new(Element::F16, places.iter().copied());
        assert_eq!(view(&[4, 5, 6]).runs, [[4, 3, 1]]);
        assert_eq!(view(&[1, 9, 17, 3, 11]).runs, [[1, 3, 8], [3, 2, 8]]);
        assert_eq!(view(&[9, 2]).runs, [[9, 1, 1], [2, 1, 1]]);
        for places in [&[1, 9, 17, 3, 11, 12, 13][..], &[], &[0], &[5, 5, 5]] {
            assert_eq!(view(places).places().collect::<Vec<_>>(), places);
        }
        assert_eq!(view(&[1, 9]).bytes(), 20);
    }

    fn small() -> SelfTest {
        let digest = digest(&[1.0, 2.0]);
        let choice = Choice { token: 1, margin: 1.0, tolerance: 0.5 };
        let place = Place { launch: 1, probe: 0, buffer: 6, view: 0 };
        let view = View::new(Element::F32, 0..2);
        SelfTest {
            version: SELF_TEST_VERSION,
            text: None,
            tokens: vec![1, 2, 3],
            seed: 7,
            choices: [choice; 2],
            probes: vec![Probe {
                layer: String::new(),
                value: "logits".into(),
                width: 2,
                digests: [digest; 2],
            }],
            targets: [(
                "cpu".into(),
                TargetTest { views: vec![view], places: [vec![place], vec![place]] },
            )]
            .into(),
        }
    }

    #[test]
    fn what_does_not_fit_the_plan_is_refused() {
        let plan = toy::plan();
        assert_eq!(SelfTest::from_json(&small().to_json()).unwrap(), small());
        small().target(&plan).unwrap();
        let error = |change: &dyn Fn(&mut SelfTest)| {
            let mut test = small();
            change(&mut test);
            test.target(&plan).unwrap_err().to_string()
        };
        let place = |change: &dyn Fn(&mut Place)| {
            error(&|test| {
                let target = test.targets.get_mut("cpu").unwrap();
                change(&mut target.places[0][0]);
            })
        };
        let misfit = "it does not fit the plan for cpu: ";
        assert_eq!(error(&|t| t.targets.clear()), format!("{misfit}it has no such target"));
        let prompt = format!("{misfit}its prompt is not one of the model");
        for tokens in [vec![1], vec![1; 5], vec![1, 10]] {
            assert_eq!(error(&|t| t.tokens = tokens.clone()), prompt);
        }
        assert_eq!(place(&|p| p.launch = 9), format!("{misfit}probe 0 at launch 9"));
        assert_eq!(place(&|p| p.probe = 9), format!("{misfit}probe 9 at launch 1"));
        let at = format!("{misfit}probe 0 at launch 1");
        assert_eq!(place(&|p| p.buffer = 99), at);
        assert_eq!(place(&|p| p.view = 9), at);
        let view = |runs: &[[u64; 3]]| {
            error(&|t| t.targets.get_mut("cpu").unwrap().views[0].runs = runs.to_vec())
        };
        for runs in [&[[0, 3, 1]][..], &[[1 << 40, 2, 1]], &[[0, 2, u64::MAX]], &[[0, 0, 1]]] {
            assert_eq!(view(runs), at);
        }
        let version = SelfTest { version: 9, ..small() }.to_json();
        insta::assert_snapshot!(SelfTest::from_json(&version).unwrap_err(), @"it has version 9, this program knows 1: recompile the model");
        insta::assert_snapshot!(SelfTest::from_json(b"{").unwrap_err(), @"it is not readable: EOF while parsing an object at line 1 column 1");
    }
}
