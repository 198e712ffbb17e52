//! Data of other lanes, and moves that name registers in unusual ways.

use waveloom_emulator::Chip;

use crate::machine::{AGPR, M0, Random, State};
use crate::snippet::{Snippet, check, snippet};

/// Lanes that execute, then lanes of the wave.
fn active(state: &State) -> Vec<usize> {
    (0..state.lanes).filter(|lane| state.on(*lane)).collect()
}

/// Writes a row where lanes execute; `None` leaves a lane as it is.
fn write(state: &mut State, row: usize, f: impl Fn(&State, usize) -> Option<u32>) {
    let values: Vec<(usize, Option<u32>)> =
        active(state).into_iter().map(|lane| (lane, f(state, lane))).collect();
    for (lane, value) in values {
        if let Some(value) = value {
            state.v[row][lane] = value;
        }
    }
}

/// The lane of a row of 16 that a pair of selectors names.
fn selected(selectors: u64, lane: usize) -> usize {
    (selectors >> (4 * (lane % 16)) & 15) as usize
}

/// What an inactive source gives: its data, zero, or nothing.
fn fetched(state: &State, row: usize, from: usize, inactive: bool, zero: bool) -> Option<u32> {
    match (state.on(from) || inactive, zero) {
        (true, _) => Some(state.v[row][from]),
        (false, true) => Some(0),
        (false, false) => None,
    }
}

fn permlanes() -> Vec<Snippet> {
    let mut list = Vec::new();
    for (inactive, bound) in [(false, false), (true, false), (false, true), (true, true)] {
        let flag = |on: bool| if on { 1 } else { 0 };
        let flags = format!("op_sel:[{},{}]", flag(inactive), flag(bound));
        for (name, cross) in [("v_permlane16_b32", 0), ("v_permlanex16_b32", 16)] {
            list.push(snippet(&format!("{name} v10, v2, s4, s6 {flags}"), move |state| {
                let selectors = u64::from(state.s[4]) | u64::from(state.s[6]) << 32;
                write(state, 10, |state, lane| {
                    let from = (lane & !15) ^ cross | selected(selectors, lane);
                    fetched(state, 2, from, inactive, bound)
                });
            }));
            // Destination over source.
            list.push(snippet(&format!("{name} v2, v2, s4, -1 {flags}"), move |state| {
                let selectors = u64::from(state.s[4]) | 0xffff_ffff << 32;
                write(state, 2, |state, lane| {
                    let from = (lane & !15) ^ cross | selected(selectors, lane);
                    fetched(state, 2, from, inactive, bound)
                });
            }));
        }
        for (name, cross) in [("v_permlane16_var_b32", 0), ("v_permlanex16_var_b32", 16)] {
            list.push(snippet(&format!("{name} v10, v2, v4 {flags}"), move |state| {
                write(state, 10, |state, lane| {
                    let from = (lane & !15) ^ cross | (state.v[4][lane] & 15) as usize;
                    fetched(state, 2, from, inactive, bound)
                });
            }));
        }
    }
    list
}

fn swap_lanes(state: &mut State, a: (usize, usize), b: (usize, usize)) {
    let (x, y) = (state.v[a.0][a.1], state.v[b.0][b.1]);
    state.v[a.0][a.1] = y;
    state.v[b.0][b.1] = x;
}

fn permlane_swaps() -> Vec<Snippet> {
    let sixteen = |state: &mut State| {
        for pass in 0..2 {
            for lane in 0..16 {
                swap_lanes(state, (2, 32 * pass + lane), (10, 32 * pass + lane + 16));
            }
        }
    };
    let thirty_two = |state: &mut State| {
        (0..32).for_each(|lane| swap_lanes(state, (2, lane), (10, lane + 32)));
    };
    let halves = |state: &mut State| {
        let lanes = state.lanes;
        if lanes == 64 {
            write(state, 10, |state, lane| Some(state.v[2][lane ^ 32]));
        }
    };
    vec![
        snippet("v_permlane16_swap_b32 v10, v2", sixteen).whole(),
        snippet("v_permlane16_swap_b32_e64 v10, v2", sixteen).whole(),
        snippet("v_permlane32_swap_b32 v10, v2", thirty_two).whole(),
        snippet("v_permlane32_swap_b32_e64 v10, v2", thirty_two).whole(),
        snippet("v_permlane64_b32 v10, v2", halves),
    ]
}

fn read_lanes() -> Vec<Snippet> {
    let first = |state: &State| active(state).first().copied().unwrap_or(0);
    let lane_of = |state: &State, number: u32| number as usize % state.lanes;
    vec![
        snippet("v_readfirstlane_b32 s10, v2", move |state| {
            state.s[10] = state.v[2][first(state)];
        }),
        snippet("v_readlane_b32 s10, v2, s4", move |state| {
            state.s[10] = state.v[2][lane_of(state, state.s[4])];
        }),
        snippet("v_readlane_b32 s10, v2, 17", |state| state.s[10] = state.v[2][17]),
        snippet("v_readlane_b32 vcc_lo, v2, m0", move |state| {
            state.s[106] = state.v[2][lane_of(state, state.s[M0])];
        })
        .with(|state, random| state.s[M0] = random.bits() as u32),
        snippet("v_writelane_b32 v10, s2, s2", move |state| {
            let lane = lane_of(state, state.s[2]);
            state.v[10][lane] = state.s[2];
        }),
        snippet("v_writelane_b32 v10, s2, 21", |state| state.v[10][21] = state.s[2]),
        snippet("v_writelane_b32 v10, -7, s4", move |state| {
            let lane = lane_of(state, state.s[4]);
            state.v[10][lane] = (-7_i32) as u32;
        }),
        snippet("v_writelane_b32 v10, 1.0, m0", move |state| {
            let lane = lane_of(state, state.s[M0]);
            state.v[10][lane] = 1.0_f32.to_bits();
        })
        .with(|state, random| state.s[M0] = random.bits() as u32),
    ]
}

/// Byte addresses of lanes: near multiples of four, beyond the wave, negative.
fn lane_addresses(state: &mut State, random: &mut Random) {
    for lane in 0..64 {
        state.v[4][lane] = match random.below(4) {
            0 => random.bits() as u32,
            1 => 4 * random.below(128) as u32 + random.below(4) as u32,
            _ => 4 * random.below(32) as u32,
        };
    }
}

/// Rows of 32 lanes are apart on RDNA 3, also in a wave of 64.
fn reachable(state: &State, lane: usize, address: u32) -> usize {
    let number = (address / 4) as usize;
    match state.chip {
        Chip::Gfx1100 | Chip::Gfx1151 => lane & 32 | number % 32,
        _ => number % state.lanes,
    }
}

fn through_lds() -> Vec<Snippet> {
    let mut list = Vec::new();
    for offset in [0_u32, 4, 100, 1000] {
        let suffix = if offset == 0 { String::new() } else { format!(" offset:{offset}") };
        list.push(
            snippet(&format!("ds_bpermute_b32 v10, v4, v2{suffix}"), move |state| {
                write(state, 10, |state, lane| {
                    let from = reachable(state, lane, state.v[4][lane].wrapping_add(offset));
                    Some(if state.on(from) { state.v[2][from] } else { 0 })
                });
            })
            .with(lane_addresses),
        );
        list.push(
            snippet(&format!("ds_permute_b32 v10, v4, v2{suffix}"), move |state| {
                let mut sent = [0; 64];
                for lane in active(state) {
                    let to = reachable(state, lane, state.v[4][lane].wrapping_add(offset));
                    sent[to] = state.v[2][lane];
                }
                write(state, 10, |_, lane| Some(sent[lane]));
            })
            .with(lane_addresses),
        );
        list.push(
            snippet(&format!("ds_bpermute_fi_b32 v10, v4, v2{suffix}"), move |state| {
                write(state, 10, |state, lane| {
                    let number = state.v[4][lane].wrapping_add(offset) / 4;
                    Some(state.v[2][number as usize % state.lanes])
                });
            })
            .with(lane_addresses),
        );
    }
    list
}

/// The lane that `ds_swizzle_b32` reads for a lane of a group of 32.
fn swizzled(offset: u32, lane: u32) -> u32 {
    let low = lane & 31;
    let source = match offset {
        0xe000.. => {
            let mask = offset & 31;
            low.reverse_bits() >> 27 >> mask.count_ones() | low & mask
        }
        0xc000.. => {
            let (count, mask) = (offset >> 5 & 31, offset & 31);
            let moved = if offset >> 10 & 1 == 1 { low + 32 - count } else { low + count };
            low & mask | moved & 31 & !mask
        }
        0x8000.. => low & !3 | offset >> (2 * (low & 3)) & 3,
        _ => (low & offset | offset >> 5 & 31) ^ offset >> 10 & 31,
    };
    lane & !31 | source & 31
}

fn swizzles() -> Vec<Snippet> {
    let mut offsets: Vec<u32> = vec![0x1f, 0x401f, 0x7c1f, 0x001e, 0x03e0, 0x8000, 0x80e4, 0x801b];
    offsets.extend([0x041f, 0x081f, 0x101f, 0x201f, 0x2a95, 0x80b1]);
    offsets.extend([0xc020, 0xc3e0, 0xc420, 0xc0a3, 0xe000, 0xe010, 0xe01f, 0xe007]);
    let one = |offset: u32| {
        snippet(&format!("ds_swizzle_b32 v10, v2 offset:{offset}"), move |state| {
            write(state, 10, |state, lane| {
                let from = swizzled(offset, lane as u32) as usize;
                Some(if state.on(from) { state.v[2][from] } else { 0 })
            });
        })
    };
    offsets.into_iter().map(one).collect()
}

fn moves(chip: Chip) -> Vec<Snippet> {
    let copy = |to: usize, from: usize| {
        move |state: &mut State| write(state, to, |state, lane| Some(state.v[from][lane]))
    };
    let exchange = |state: &mut State, a: usize, b: usize| {
        for lane in active(state) {
            swap_lanes(state, (a, lane), (b, lane));
        }
    };
    let small = |state: &mut State, random: &mut Random| {
        state.s[M0] = random.below(12) as u32 | (random.below(12) as u32) << 16;
    };
    let index = |state: &mut State, random: &mut Random| state.s[M0] = random.below(12) as u32;
    let mut list = vec![
        snippet("v_swap_b32 v10, v2", move |state| exchange(state, 10, 2)),
        snippet("v_swap_b16 v10.l, v2.h", |state| {
            for lane in active(state) {
                let (a, b) = (state.v[10][lane], state.v[2][lane]);
                state.v[10][lane] = a & 0xffff_0000 | b >> 16;
                state.v[2][lane] = b & 0xffff | a << 16;
            }
        }),
        snippet("v_accvgpr_read_b32 v10, a2", copy(10, AGPR + 2)),
        snippet("v_accvgpr_write_b32 a10, v2", copy(AGPR + 10, 2)),
        snippet("v_accvgpr_write_b32 a10, 1.0", |state| {
            write(state, AGPR + 10, |_, _| Some(1.0_f32.to_bits()));
        }),
        snippet("v_accvgpr_write_b32 a10, s4", |state| {
            write(state, AGPR + 10, |state, _| Some(state.s[4]));
        }),
        snippet("v_accvgpr_mov_b32 a10, a2", copy(AGPR + 10, AGPR + 2)),
    ];
    if chip.is_rdna() {
        list.push(
            snippet("v_movrels_b32 v40, v2", |state| {
                let from = 2 + state.s[M0] as usize;
                write(state, 40, |state, lane| Some(state.v[from][lane]));
            })
            .with(index),
        );
        list.push(
            snippet("v_movreld_b32 v20, v2", |state| {
                let to = 20 + state.s[M0] as usize;
                write(state, to, |state, lane| Some(state.v[2][lane]));
            })
            .with(index),
        );
        list.push(
            snippet("v_movrelsd_b32 v20, v2", |state| {
                let (to, from) = (20 + state.s[M0] as usize, 2 + state.s[M0] as usize);
                write(state, to, |state, lane| Some(state.v[from][lane]));
            })
            .with(index),
        );
        list.push(
            snippet("v_movrelsd_2_b32 v20, v2", |state| {
                let m0 = state.s[M0] as usize;
                let (to, from) = (20 + (m0 >> 16 & 0x3ff), 2 + (m0 & 0x3ff));
                write(state, to, |state, lane| Some(state.v[from][lane]));
            })
            .with(small),
        );
        list.push(
            snippet("v_swaprel_b32 v20, v2", move |state| {
                let m0 = state.s[M0] as usize;
                exchange(state, 20 + (m0 >> 16 & 0x3ff), 2 + (m0 & 0x3ff));
            })
            .with(small),
        );
    }
    list.extend(scalar_moves(index, small));
    list
}

fn scalar_moves(
    index: fn(&mut State, &mut Random),
    small: fn(&mut State, &mut Random),
) -> Vec<Snippet> {
    // 64-bit moves need an even number.
    let even = |state: &mut State, random: &mut Random| {
        state.s[M0] = 2 * random.below(6) as u32;
    };
    vec![
        snippet("s_movrels_b32 s40, s2", |state| {
            state.s[40] = state.s[2 + state.s[M0] as usize];
        })
        .with(index),
        snippet("s_movreld_b32 s20, s2", |state| {
            state.s[20 + state.s[M0] as usize] = state.s[2];
        })
        .with(index),
        snippet("s_movrels_b64 s[40:41], s[2:3]", |state| {
            let value = state.pair(2 + state.s[M0] as usize);
            state.set_pair(40, value);
        })
        .with(even),
        snippet("s_movreld_b64 s[20:21], s[2:3]", |state| {
            let (to, value) = (20 + state.s[M0] as usize, state.pair(2));
            state.set_pair(to, value);
        })
        .with(even),
        snippet("s_movrelsd_2_b32 s20, s2", |state| {
            let m0 = state.s[M0] as usize;
            state.s[20 + (m0 >> 16 & 0x3ff)] = state.s[2 + (m0 & 0x3ff)];
        })
        .with(small),
    ]
}

/// GPR_IDX_EN of MODE.
const INDEX_MODE: u32 = 1 << 27;

/// CDNA's index mode: M0 holds a displacement and which operands have it.
fn index_mode() -> Vec<Snippet> {
    let mut list = vec![
        snippet("s_set_gpr_idx_on s2, gpr_idx(SRC0,DST)", |state| {
            state.mode |= INDEX_MODE;
            state.s[M0] = state.s[M0] & 0xffff_0f00 | state.s[2] & 0xff | 9 << 12;
        }),
        snippet("s_set_gpr_idx_on 5, gpr_idx(SRC1,SRC2)", |state| {
            state.mode |= INDEX_MODE;
            state.s[M0] = state.s[M0] & 0xffff_0f00 | 5 | 6 << 12;
        }),
        snippet("s_set_gpr_idx_idx s2", |state| {
            state.s[M0] = state.s[M0] & 0xffff_ff00 | state.s[2] & 0xff;
        }),
        snippet("s_set_gpr_idx_mode gpr_idx(SRC1)", |state| {
            state.s[M0] = state.s[M0] & 0xffff_0fff | 2 << 12;
        }),
        snippet("s_set_gpr_idx_off", |state| state.mode &= !INDEX_MODE),
    ];
    // Which operands are displaced: bit 0 the first source, 1 the second, 3 the destination.
    for operands in 0..16_u32 {
        let displaced = move |state: &State, bit: u32, row: usize| {
            let on = state.s[M0] >> (12 + bit) & 1 == 1;
            if on { row + (state.s[M0] & 0xff) as usize } else { row }
        };
        let prepare = move |state: &mut State, random: &mut Random| {
            state.mode |= INDEX_MODE;
            state.s[M0] = random.below(12) as u32 | operands << 12;
        };
        list.push(
            snippet("v_mov_b32 v30, v2", move |state| {
                let (to, from) = (displaced(state, 3, 30), displaced(state, 0, 2));
                write(state, to, |state, lane| Some(state.v[from][lane]));
            })
            .with(prepare),
        );
        list.push(
            snippet("v_xor_b32 v30, v2, v4", move |state| {
                let to = displaced(state, 3, 30);
                let (a, b) = (displaced(state, 0, 2), displaced(state, 1, 4));
                write(state, to, |state, lane| Some(state.v[a][lane] ^ state.v[b][lane]));
            })
            .with(prepare),
        );
    }
    list
}

/// Every snippet of this file.
pub fn snippets(chip: Chip, _lanes: usize) -> Vec<Snippet> {
    let mut list = permlanes();
    list.extend(permlane_swaps());
    list.extend(read_lanes());
    list.extend(through_lds());
    list.extend(swizzles());
    list.extend(moves(chip));
    if chip.is_cdna() {
        list.extend(index_mode());
    }
    list
}

#[test]
fn data_of_other_lanes() {
    check(snippets, 300);
}
