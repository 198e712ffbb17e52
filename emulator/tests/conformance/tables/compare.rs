//! Comparisons of one lane: to a mask, and to the execution mask.

use std::cmp::Ordering::{Equal, Greater, Less};

use crate::exact::{F16, F32, F64, Format, compare};
use crate::values::T;
use crate::vector::{CMPX, Lane, Op, check};

fn order(l: &Lane, format: Format, s: &[u64; 4]) -> Option<std::cmp::Ordering> {
    compare(l.num(format, s[0]), l.num(format, s[1]))
}

fn signed(bits: u64, width: u32) -> i64 {
    (bits << (64 - width)) as i64 >> (64 - width)
}

/// The bit of the class mask that a value belongs to.
fn class(format: Format, s: &[u64; 4]) -> u64 {
    let bits = s[0];
    let negative = bits & format.sign() != 0;
    let side = |below: u32, above: u32| if negative { below } else { above };
    let bit = if format.is_signaling(bits) {
        0
    } else if format.is_nan(bits) {
        1
    } else if format.is_infinite(bits) {
        side(2, 9)
    } else if format.magnitude(bits) == 0 {
        side(5, 6)
    } else if format.is_denormal(bits) {
        side(4, 7)
    } else {
        side(3, 8)
    };
    s[1] >> bit & 1
}

macro_rules! pair {
    ($list:ident, $what:literal, $suffix:literal, $src:expr, $f:expr) => {
        let f: fn(&mut Lane, &[u64; 4]) -> u64 = $f;
        let name = concat!("v_cmp_", $what, "_", $suffix);
        $list.push(Op { name, dst: T::Mask, src: $src, f, flags: 0 });
        let name = concat!("v_cmpx_", $what, "_", $suffix);
        $list.push(Op { name, dst: T::Mask, src: $src, f, flags: CMPX });
    };
}

macro_rules! floats {
    ($list:ident, $suffix:literal, $t:expr, $mask:expr, $format:expr) => {
        pair!($list, "f", $suffix, &[$t, $t], |_, _| 0);
        pair!($list, "t", $suffix, &[$t, $t], |_, _| 1);
        pair!($list, "tru", $suffix, &[$t, $t], |_, _| 1);
        pair!($list, "lt", $suffix, &[$t, $t], |l, s| (order(l, $format, s) == Some(Less)).into());
        pair!($list, "eq", $suffix, &[$t, $t], |l, s| (order(l, $format, s) == Some(Equal)).into());
        pair!($list, "gt", $suffix, &[$t, $t], |l, s| {
            (order(l, $format, s) == Some(Greater)).into()
        });
        pair!($list, "le", $suffix, &[$t, $t], |l, s| {
            matches!(order(l, $format, s), Some(Less | Equal)).into()
        });
        pair!($list, "ge", $suffix, &[$t, $t], |l, s| {
            matches!(order(l, $format, s), Some(Greater | Equal)).into()
        });
        pair!($list, "lg", $suffix, &[$t, $t], |l, s| {
            matches!(order(l, $format, s), Some(Less | Greater)).into()
        });
        pair!($list, "o", $suffix, &[$t, $t], |l, s| order(l, $format, s).is_some().into());
        pair!($list, "u", $suffix, &[$t, $t], |l, s| order(l, $format, s).is_none().into());
        pair!($list, "nlt", $suffix, &[$t, $t], |l, s| {
            (order(l, $format, s) != Some(Less)).into()
        });
        pair!($list, "neq", $suffix, &[$t, $t], |l, s| {
            (order(l, $format, s) != Some(Equal)).into()
        });
        pair!($list, "ngt", $suffix, &[$t, $t], |l, s| {
            (order(l, $format, s) != Some(Greater)).into()
        });
        pair!($list, "nle", $suffix, &[$t, $t], |l, s| {
            (!matches!(order(l, $format, s), Some(Less | Equal))).into()
        });
        pair!($list, "nge", $suffix, &[$t, $t], |l, s| {
            (!matches!(order(l, $format, s), Some(Greater | Equal))).into()
        });
        pair!($list, "nlg", $suffix, &[$t, $t], |l, s| {
            (!matches!(order(l, $format, s), Some(Less | Greater))).into()
        });
        pair!($list, "class", $suffix, &[$t, $mask], |_, s| class($format, s));
    };
}

macro_rules! integers {
    ($list:ident, $signed:literal, $unsigned:literal, $t:expr, $width:literal) => {
        integers!($list, $signed, $t, |s| (signed(s[0], $width), signed(s[1], $width)));
        integers!($list, $unsigned, $t, |s| (s[0], s[1]));
    };
    ($list:ident, $suffix:literal, $t:expr, |$s:ident| $values:expr) => {
        pair!($list, "f", $suffix, &[$t, $t], |_, _| 0);
        pair!($list, "t", $suffix, &[$t, $t], |_, _| 1);
        integer!($list, "lt", $suffix, $t, |$s| $values, <);
        integer!($list, "eq", $suffix, $t, |$s| $values, ==);
        integer!($list, "le", $suffix, $t, |$s| $values, <=);
        integer!($list, "gt", $suffix, $t, |$s| $values, >);
        integer!($list, "ne", $suffix, $t, |$s| $values, !=);
        integer!($list, "ge", $suffix, $t, |$s| $values, >=);
    };
}

macro_rules! integer {
    ($list:ident, $what:literal, $suffix:literal, $t:expr, |$s:ident| $values:expr, $op:tt) => {
        pair!($list, $what, $suffix, &[$t, $t], |_, $s| {
            let (a, b) = $values;
            (a $op b).into()
        });
    };
}

/// The table.
pub fn table() -> Vec<Op> {
    let mut list = Vec::new();
    floats!(list, "f32", T::F32, T::B32, F32);
    floats!(list, "f64", T::F64, T::B32, F64);
    floats!(list, "f16", T::F16, T::B16, F16);
    integers!(list, "i32", "u32", T::B32, 32);
    integers!(list, "i64", "u64", T::B64, 64);
    integers!(list, "i16", "u16", T::B16, 16);
    list
}

#[test]
fn vector_comparisons() {
    check(&table(), 5000);
}
