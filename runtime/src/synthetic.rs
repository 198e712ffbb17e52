//! Makes up the weights of a plan that has none: see [`waveloom_plan::synthetic`].
//!
//! Random bytes come in words of eight: the word at byte offset o of the constants segment is a hash
//! of o and the seed. Numbers are made of it with two operations a word: random bits for sign and
//! fraction, two more for the octave, and the exponent added.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use waveloom_plan::synthetic::scatter;
use waveloom_plan::{Content, Fill, NumberForm, Synthetic};

/// Bytes of a random word.
const WORD: u64 = 8;
/// A thread makes so many bytes at a time.
const PIECE: usize = 1 << 20;

/// Writes what lies in the constants segment from byte `start` on to `bytes`, which are zero before,
/// on all processors.
pub fn fill(synthetic: &Synthetic, start: u64, bytes: &mut [u8]) {
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
    let pieces = Mutex::new(bytes.chunks_mut(PIECE).enumerate());
    // A thread that panicked had its piece already: the others are as they should be.
    let next = || pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        while let Some((index, piece)) = next() {
            fill_piece(synthetic, start + (index * PIECE) as u64, piece);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..processors {
            scope.spawn(work);
        }
        work();
    });
}

/// As [`fill`], here and now.
fn fill_piece(synthetic: &Synthetic, start: u64, bytes: &mut [u8]) {
    let key = mix(synthetic.seed);
    let piece = start..start + bytes.len() as u64;
    for fill in &synthetic.fills {
        for index in touched(fill, &piece) {
            let first = fill.offset + index * fill.stride;
            let range = first.max(piece.start)..(first + fill.bytes).min(piece.end);
            if range.is_empty() {
                continue;
            }
            let to = &mut bytes[(range.start - start) as usize..(range.end - start) as usize];
            match &fill.content {
                Content::Numbers { form, exponent } => {
                    let (keep, add) = number_words(*form, *exponent);
                    // No lane carries into the next: the largest exponent is a finite number's.
                    write_words(range.start, to, |offset| (word(key, offset) & keep) + add);
                }
                Content::Bytes => write_words(range.start, to, |offset| word(key, offset)),
                Content::Repeat(bytes) => repeat(bytes, range.start - first, to),
            }
        }
    }
}

/// Numbers of the ranges of a fill that may have bytes in `piece`.
fn touched(fill: &Fill, piece: &Range<u64>) -> Range<u64> {
    if fill.stride == 0 {
        return 0..1;
    }
    // The first range that ends behind the piece's begin, the first that begins behind its end.
    let first = (piece.start + 1).saturating_sub(fill.offset + fill.bytes).div_ceil(fill.stride);
    let end = piece.end.saturating_sub(fill.offset).div_ceil(fill.stride);
    first.min(fill.count)..end.min(fill.count)
}

/// What to keep of a random word, and what to add, so that numbers come out.
fn number_words(form: NumberForm, exponent: i32) -> (u64, u64) {
    let (fraction, bias) = form.fraction_and_bias();
    let bits = 8 * form.bytes() as u32;
    let sign = 1u64 << (bits - 1);
    let octave_and_fraction = (1u64 << (fraction + 2)) - 1;
    let smallest = u64::from((exponent - 4 + bias).unsigned_abs()) << fraction;
    let every = |lane: u64| (0..64 / bits).fold(0, |word, i| word | lane << (i * bits));
    (every(sign | octave_and_fraction), every(smallest))
}

/// Writes words to where they belong, `to` being the bytes from `offset` on.
fn write_words(mut offset: u64, mut to: &mut [u8], word: impl Fn(u64) -> u64) {
    let head = (offset.next_multiple_of(WORD) - offset).min(to.len() as u64) as usize;
    if head > 0 {
        let (part, rest) = to.split_at_mut(head);
        let from = (offset % WORD) as usize;
        part.copy_from_slice(&word(offset - offset % WORD).to_le_bytes()[from..from + head]);
        (to, offset) = (rest, offset + head as u64);
    }
    let mut words = to.chunks_exact_mut(WORD as usize);
    for to in &mut words {
        to.copy_from_slice(&word(offset).to_le_bytes());
        offset += WORD;
    }
    let tail = words.into_remainder();
    tail.copy_from_slice(&word(offset).to_le_bytes()[..tail.len()]);
}

/// Writes `bytes` again and again, `to` being what lies from byte `at` on.
fn repeat(bytes: &[u8], at: u64, to: &mut [u8]) {
    let skip = (at % bytes.len() as u64) as usize;
    let mut done = bytes.len().min(to.len());
    for (to, from) in to.iter_mut().zip(bytes[skip..].iter().chain(&bytes[..skip])) {
        *to = *from;
    }
    // What is done is whole rounds: it is what follows, too.
    while done < to.len() {
        let more = done.min(to.len() - done);
        to.copy_within(..more, done);
        done += more;
    }
}

/// The random word at a byte offset.
fn word(key: u64, offset: u64) -> u64 {
    mix(key ^ offset)
}

/// A step of SplitMix64's counter, scattered.
fn mix(x: u64) -> u64 {
    scatter(x.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(form: NumberForm, exponent: i32) -> Content {
        Content::Numbers { form, exponent }
    }

    fn made(seed: u64, fills: Vec<Fill>, start: u64, bytes: usize) -> Vec<u8> {
        let mut made = vec![0; bytes];
        fill(&Synthetic { seed, fills }, start, &mut made);
        made
    }

    fn values(form: NumberForm, bytes: &[u8]) -> Vec<f64> {
        let number = |bytes: &[u8]| match form {
            NumberForm::F32 => f32::from_le_bytes(bytes.try_into().unwrap()).into(),
            NumberForm::BF16 => f32::from_le_bytes([0, 0, bytes[0], bytes[1]]).into(),
            NumberForm::F16 => {
                let bits = u16::from_le_bytes(bytes.try_into().unwrap());
                let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
                assert!((1..31).contains(&exponent), "normal and finite");
                let sign = if bits >> 15 == 0 { 1.0 } else { -1.0 };
                sign * (1.0 + fraction / 1024.0) * f64::powi(2.0, exponent - 15)
            }
        };
        bytes.chunks_exact(form.bytes() as usize).map(number).collect()
    }

    /// Moments of many numbers: the mean of n numbers of mean 0 and root mean square r is within 5
    /// r / √n with a chance of 1 − 6e-7, and so, with what their fourth moment is, the square.
    #[test]
    fn numbers_have_the_scale_that_the_exponent_says() {
        for form in [NumberForm::F32, NumberForm::F16, NumberForm::BF16] {
            for exponent in [-10, -5, 0, 15] {
                let fill = Fill::range(0, 1 << 20, numbers(form, exponent));
                let values = values(form, &made(3, vec![fill], 0, 1 << 20));
                let scale = f64::powi(2.0, exponent);
                let inside = |x: &f64| x.abs() < scale && x.abs() >= scale / 16.0;
                assert!(values.iter().all(inside));
                let n = values.len() as f64;
                let mean = values.iter().sum::<f64>() / n / scale;
                let square = values.iter().map(|x| x * x).sum::<f64>() / n / (scale * scale);
                // 7/12 · (1 + 1/4 + 1/16 + 1/64) / 4: the square of a number in [1/2, 1) is 7/12 at
                // a mean. Fractions of bf16 are cut to 7 bits, half a step (1/256) below.
                let expected = 7.0 / 12.0 * 0.332;
                assert!(mean.abs() < 5.0 * 0.44 / n.sqrt(), "{form:?}: {mean}");
                assert!((square - expected).abs() < 5.0 * 0.3 / n.sqrt() + 1.5e-3, "{form:?}");
            }
        }
    }

    /// Each byte value is as likely as the other: chi-square of 255 degrees of freedom, below 330
    /// with a chance of 99.9 %.
    #[test]
    fn bytes_are_uniform() {
        let bytes = made(11, vec![Fill::range(0, 1 << 20, Content::Bytes)], 0, 1 << 20);
        for lane in 0..8 {
            let mut counts = [0f64; 256];
            bytes.iter().skip(lane).step_by(8).for_each(|byte| counts[*byte as usize] += 1.0);
            let expected = f64::from(1 << 17) / 256.0;
            let chi: f64 = counts.iter().map(|c| (c - expected).powi(2) / expected).sum();
            assert!(chi < 330.0, "byte {lane} of words: {chi}");
        }
    }

    fn mixed() -> Vec<Fill> {
        let strided = |offset, bytes, count, stride, content| Fill {
            count,
            stride,
            ..Fill::range(offset, bytes, content)
        };
        vec![
            strided(4, 12, 70, 40, numbers(NumberForm::F32, -2)),
            strided(18, 6, 70, 40, Content::Repeat(vec![1, 2, 3, 4])),
            Fill::range(2900, 333, Content::Bytes),
            strided(3300, 2, 100, 2, numbers(NumberForm::F16, 0)),
        ]
    }

    #[test]
    fn pieces_of_any_size_give_the_same_bytes() {
        let whole = made(5, mixed(), 0, 3600);
        for size in [1, 7, 64, 1000] {
            let mut pieces = vec![];
            while pieces.len() < whole.len() {
                let bytes = size.min(whole.len() - pieces.len());
                pieces.extend(made(5, mixed(), pieces.len() as u64, bytes));
            }
            assert!(pieces == whole, "pieces of {size} bytes");
        }
        // And so do several threads.
        let fills = vec![Fill::range(0, 5 << 20, Content::Bytes)];
        let whole = made(5, fills.clone(), 0, 5 << 20);
        assert!(made(5, fills, 3 << 20, 1 << 20) == whole[3 << 20..4 << 20]);
    }

    #[test]
    fn what_no_fill_names_stays_zero_and_ranges_begin_with_their_pattern() {
        let bytes = made(5, mixed(), 0, 3600);
        assert_eq!(bytes[..4], [0; 4]);
        for range in 0..70 {
            let at = 40 * range;
            assert_eq!(bytes[at + 16..at + 18], [0; 2], "range {range}");
            assert_eq!(bytes[at + 18..at + 24], [1, 2, 3, 4, 1, 2]);
            assert!(values(NumberForm::F32, &bytes[at + 4..at + 16]).iter().all(|x| *x != 0.0));
            let gap = if range < 69 { &bytes[at + 24..at + 44] } else { &bytes[at + 24..2900] };
            assert!(gap.iter().all(|byte| *byte == 0), "range {range}");
        }
        assert!(bytes[3233..3300].iter().chain(&bytes[3500..]).all(|byte| *byte == 0));
    }

    #[test]
    fn seeds_differ() {
        let of = |seed| made(seed, vec![Fill::range(0, 4096, Content::Bytes)], 0, 4096);
        assert!(of(1) == of(1));
        let equal = of(1).iter().zip(of(2)).filter(|(a, b)| **a == *b).count();
        // One in 256: 16 at a mean, more than 48 never.
        assert!(equal < 48, "{equal}");
    }
}
