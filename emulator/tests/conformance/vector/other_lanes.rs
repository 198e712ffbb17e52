//! Data of other lanes (DPP): which lane gets whose data.

/// How data of other lanes is chosen.
#[derive(Clone, Debug, PartialEq)]
pub enum Ctrl {
    Quad([usize; 4]),
    RowShl(usize),
    RowShr(usize),
    RowRor(usize),
    WaveShl,
    WaveRol,
    WaveShr,
    WaveRor,
    Mirror,
    HalfMirror,
    Bcast15,
    Bcast31,
    NewBcast(usize),
    Share(usize),
    Xmask(usize),
    Dpp8([usize; 8]),
}

/// DPP's fields.
#[derive(Clone, Debug)]
pub struct Dpp {
    pub ctrl: Ctrl,
    pub row_mask: u32,
    pub bank_mask: u32,
    pub bound: bool,
    pub fetch_inactive: bool,
}

impl Dpp {
    /// The modifiers.
    pub fn text(&self) -> String {
        let list = |list: &[usize]| list.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let ctrl = match &self.ctrl {
            Ctrl::Dpp8(lanes) => {
                let fi = if self.fetch_inactive { " fi:1" } else { "" };
                return format!("dpp8:[{}]{fi}", list(lanes));
            }
            Ctrl::Quad(lanes) => format!("quad_perm:[{}]", list(lanes)),
            Ctrl::RowShl(n) => format!("row_shl:{n}"),
            Ctrl::RowShr(n) => format!("row_shr:{n}"),
            Ctrl::RowRor(n) => format!("row_ror:{n}"),
            Ctrl::WaveShl => "wave_shl:1".to_string(),
            Ctrl::WaveRol => "wave_rol:1".to_string(),
            Ctrl::WaveShr => "wave_shr:1".to_string(),
            Ctrl::WaveRor => "wave_ror:1".to_string(),
            Ctrl::Mirror => "row_mirror".to_string(),
            Ctrl::HalfMirror => "row_half_mirror".to_string(),
            Ctrl::Bcast15 => "row_bcast:15".to_string(),
            Ctrl::Bcast31 => "row_bcast:31".to_string(),
            Ctrl::NewBcast(n) => format!("row_newbcast:{n}"),
            Ctrl::Share(n) => format!("row_share:{n}"),
            Ctrl::Xmask(n) => format!("row_xmask:{n}"),
        };
        let mut text =
            format!("{ctrl} row_mask:{:#x} bank_mask:{:#x}", self.row_mask, self.bank_mask);
        if self.bound {
            text += " bound_ctrl:1";
        }
        if self.fetch_inactive {
            text += " fi:1";
        }
        text
    }

    /// The lane whose data `lane` gets; none beyond the end of a row or of the wave.
    pub fn source(&self, lane: usize, lanes: usize) -> Option<usize> {
        let (row, at) = (lane / 16 * 16, lane % 16);
        let within = |at: usize| (at < 16).then_some(row + at);
        match &self.ctrl {
            Ctrl::Quad(sel) => Some(lane / 4 * 4 + sel[lane % 4]),
            Ctrl::RowShl(n) => within(at + n),
            Ctrl::RowShr(n) => at.checked_sub(*n).map(|at| row + at),
            Ctrl::RowRor(n) => Some(row + (at + 16 - n) % 16),
            Ctrl::WaveShl => (lane + 1 < lanes).then_some(lane + 1),
            Ctrl::WaveRol => Some((lane + 1) % lanes),
            Ctrl::WaveShr => lane.checked_sub(1),
            Ctrl::WaveRor => Some((lane + lanes - 1) % lanes),
            Ctrl::Mirror => Some(row + 15 - at),
            Ctrl::HalfMirror => Some(lane / 8 * 8 + 7 - lane % 8),
            Ctrl::Bcast15 => row.checked_sub(1),
            Ctrl::Bcast31 => (lane > 31).then_some(31),
            Ctrl::NewBcast(n) | Ctrl::Share(n) => Some(row + n),
            Ctrl::Xmask(n) => Some(row + (at ^ n)),
            Ctrl::Dpp8(sel) => Some(lane / 8 * 8 + sel[lane % 8]),
        }
    }

    /// Whether the masks let `lane` write.
    pub fn writes(&self, lane: usize) -> bool {
        if matches!(self.ctrl, Ctrl::Dpp8(_)) {
            return true;
        }
        self.row_mask >> (lane / 16) & 1 == 1 && self.bank_mask >> (lane % 16 / 4) & 1 == 1
    }
}

/// Every DPP control, for one instruction that goes through all of them.
pub fn all_controls() -> Vec<Ctrl> {
    let mut list = vec![
        Ctrl::WaveShl,
        Ctrl::WaveRol,
        Ctrl::WaveShr,
        Ctrl::WaveRor,
        Ctrl::Mirror,
        Ctrl::HalfMirror,
        Ctrl::Bcast15,
        Ctrl::Bcast31,
        Ctrl::Quad([0, 1, 2, 3]),
        Ctrl::Quad([3, 2, 1, 0]),
        Ctrl::Quad([1, 1, 3, 0]),
        Ctrl::Dpp8([7, 6, 5, 4, 3, 2, 1, 0]),
        Ctrl::Dpp8([0, 0, 2, 2, 7, 1, 4, 3]),
    ];
    for n in 0..16 {
        list.extend([Ctrl::NewBcast(n), Ctrl::Share(n), Ctrl::Xmask(n)]);
        if n > 0 {
            list.extend([Ctrl::RowShl(n), Ctrl::RowShr(n), Ctrl::RowRor(n)]);
        }
    }
    list
}
