//! Instructions whose statement changes the whole state: other lanes' data, moves, single steps.

use waveloom_emulator::Chip;

use crate::machine::{AGPR, Bench, NAMED, Random, Report, State, wanted};

/// One instruction with its statement.
pub struct Snippet {
    /// Mnemonic.
    pub name: String,
    /// Assembly.
    pub text: String,
    /// Sets registers to values worth trying, after all were set to random ones.
    pub prepare: Box<dyn Fn(&mut State, &mut Random)>,
    /// The statement.
    pub apply: Box<dyn Fn(&mut State)>,
    /// Every lane executes.
    pub all_lanes: bool,
    /// Waves of values.
    pub waves: usize,
}

/// An instruction that needs no special values.
pub fn snippet(text: &str, apply: impl Fn(&mut State) + 'static) -> Snippet {
    let name = text.split(' ').next().unwrap_or_default();
    let suffixes = ["_e64_dpp", "_e64", "_e32", "_dpp", "_sdwa"];
    let bare = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
    Snippet {
        name: bare.to_string(),
        text: text.to_string(),
        prepare: Box::new(|_, _| {}),
        apply: Box::new(apply),
        all_lanes: false,
        waves: 6,
    }
}

impl Snippet {
    /// With values set by a function.
    pub fn with(mut self, prepare: impl Fn(&mut State, &mut Random) + 'static) -> Snippet {
        self.prepare = Box::new(prepare);
        self
    }

    /// With every lane on.
    pub fn whole(mut self) -> Snippet {
        self.all_lanes = true;
        self
    }
}

/// Lanes that snippets use of the register file.
const ROWS: usize = 64;

fn randomize(bench: &mut Bench, random: &mut Random) {
    for row in (0..ROWS).chain(AGPR..AGPR + ROWS) {
        for lane in 0..64 {
            bench.state.v[row][lane] = random.bits() as u32;
        }
    }
    for index in 0..100 {
        bench.state.s[index] = random.bits() as u32;
    }
    let vcc = random.bits();
    bench.state.set_mask(crate::machine::VCC, vcc);
    bench.state.scc = random.once_in(2);
}

fn run(
    bench: &mut Bench,
    line: usize,
    snippet: &Snippet,
    random: &mut Random,
) -> Result<(), String> {
    for wave in 0..snippet.waves {
        randomize(bench, random);
        let exec = match wave % 4 {
            _ if snippet.all_lanes => u64::MAX,
            0 => u64::MAX,
            1 => random.bits(),
            2 => 1 << random.below(64),
            _ => [0, random.bits() & random.bits()][random.below(2)],
        };
        bench.set_exec(exec);
        bench.state.mode = 0xf0;
        (snippet.prepare)(&mut bench.state, random);
        bench.sync_rows(0, ROWS);
        bench.sync_rows(AGPR, ROWS);
        bench.sync_scalars();
        let before = bench.state.exec();
        (snippet.apply)(&mut bench.state);
        bench.step(line)?;
        let rows = if wave == 0 { 0..NAMED } else { 0..AGPR + ROWS };
        if let Some(difference) = bench.difference(rows) {
            return Err(format!("{difference}; exec {before:#x}"));
        }
    }
    Ok(())
}

/// Executes snippets on every chip and wave width that has them.
pub fn check(make: fn(Chip, usize) -> Vec<Snippet>, at_least: usize) {
    let report = Report::default();
    for chip in Chip::ALL {
        let widths: &[u32] = if chip.is_cdna() { &[64] } else { &[32, 64] };
        for lanes in widths {
            let mut list = make(chip, *lanes as usize);
            list.retain(|snippet| wanted(&snippet.name));
            let lines: Vec<String> = list.iter().map(|snippet| snippet.text.clone()).collect();
            let mut bench = Bench::new(chip, *lanes, &lines);
            for (line, snippet) in list.iter().enumerate() {
                if !bench.has(line) {
                    continue;
                }
                let mut random = Random::of(&snippet.text);
                if let Err(text) = run(&mut bench, line, snippet, &mut random) {
                    report.fail(chip, &snippet.name, || format!("{}: {text}", snippet.text));
                    bench.resync();
                }
                report.count();
            }
        }
    }
    report.finish(if std::env::var("CONFORM_ONLY").is_ok() { 0 } else { at_least });
}
