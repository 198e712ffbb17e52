//! The plan for people: what `inspect --plan` prints. One line per symbol, segment, buffer,
//! kernel and launch.

use crate::plan::{Arg, Buffer, BufferId, Launch, Plan, Segment};
use std::fmt;

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Segment::Constants => "constants",
            Segment::Arena => "arena",
            Segment::State => "state",
            Segment::Io => "io",
        })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_model(f)?;
        writeln!(f, "\nsymbols")?;
        for symbol in &self.symbols {
            writeln!(f, "  {} in {}..={}", symbol.name, symbol.min, symbol.max)?;
        }
        self.fmt_segments(f)?;
        if let Some(synthetic) = &self.synthetic {
            writeln!(f, "\nsynthetic weights, seed {}", synthetic.seed)?;
            synthetic.fills.iter().try_for_each(|fill| writeln!(f, "  {fill}"))?;
        }
        writeln!(f, "\nbuffers")?;
        for (id, buffer) in self.buffers.iter().enumerate() {
            self.fmt_buffer(f, id, buffer)?;
        }
        writeln!(f, "\nkernels")?;
        for (id, kernel) in self.kernels.iter().enumerate() {
            let waits = kernel.facts.as_ref().is_some_and(|facts| facts.waits);
            let waits =
                if waits { "; waits for the launch before it, and may overlap it" } else { "" };
            writeln!(f, "  k{id} {}: {}{waits}", kernel.name, kernel.summary)?;
        }
        for program in &self.programs {
            writeln!(f, "\nprogram {}: {} launches", program.name, program.launches.len())?;
            for (index, launch) in program.launches.iter().enumerate() {
                self.fmt_launch(f, index, launch)?;
            }
        }
        match &self.persistent {
            Some(step) => step.fmt(self, f),
            None => Ok(()),
        }
    }
}

impl Plan {
    fn fmt_model(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = &self.model;
        writeln!(f, "plan for {}, version {}: {}", self.target, self.version, model.name)?;
        writeln!(f, "  requires {}", self.requires.join(", "))?;
        let (vocab, context, chunk) = (model.vocab, model.max_context, model.prefill_chunk);
        writeln!(f, "  vocabulary {vocab}, context {context}, prefill chunk {chunk}")?;
        let stops: Vec<String> = model.stop_tokens.iter().map(u32::to_string).collect();
        writeln!(f, "  stops at {}", stops.join(", "))?;
        writeln!(f, "  reads {} bytes of weights per token", model.weight_bytes_per_token)
    }

    fn fmt_segments(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nsegments")?;
        let sizes = &self.segments;
        for (segment, bytes) in [
            (Segment::Constants, &sizes.constants),
            (Segment::Arena, &sizes.arena),
            (Segment::State, &sizes.state),
            (Segment::Io, &sizes.io),
        ] {
            writeln!(f, "  {segment} {}", bytes.display(&self.symbols))?;
        }
        writeln!(f, "  scratch {} per worker", self.scratch_bytes)?;
        let (peak, bound) = (self.memory.arena_peak, self.memory.arena_lower_bound);
        writeln!(f, "  arena peak {peak}, lower bound {bound}")
    }

    fn fmt_buffer(&self, f: &mut fmt::Formatter<'_>, id: BufferId, b: &Buffer) -> fmt::Result {
        let (offset, bytes) = (b.offset.display(&self.symbols), b.bytes.display(&self.symbols));
        writeln!(f, "  b{id} {} [{offset}; {bytes}] {}", b.segment, b.name)
    }

    fn fmt_launch(&self, f: &mut fmt::Formatter<'_>, index: usize, l: &Launch) -> fmt::Result {
        let kernel = self.kernels.get(l.kernel).map_or("?", |kernel| &kernel.name);
        write!(f, "  {index}: {kernel} x {} (", l.grid.display(&self.symbols))?;
        for (slot, arg) in l.args.iter().enumerate() {
            let separator = if slot == 0 { "" } else { ", " };
            match arg {
                Arg::Buffer(id) => write!(f, "{separator}b{id}")?,
                Arg::Scalar(expr) => write!(f, "{separator}{}", expr.display(&self.symbols))?,
                Arg::Scratch => write!(f, "{separator}scratch")?,
            }
        }
        f.write_str(") ->")?;
        for id in &l.writes {
            write!(f, " b{id}")?;
        }
        writeln!(f)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn prints_every_part() {
        insta::assert_snapshot!(crate::toy::plan(), @r#"
        plan for cpu, version 2: toy
          requires avx2, fma
          vocabulary 10, context 128, prefill chunk 4
          stops at 7
          reads 64 bytes of weights per token

        symbols
          T in 1..=4
          S in 1..=128
          C in 1..=128

        segments
          constants 128
          arena 64
          state 64*ceil_div(4*C, 64)
          io 320 + 64*ceil_div(4*(C + 1), 64)
          scratch 256 per worker
          arena peak 64, lower bound 64

        buffers
          b0 constants [64; 64] weight
          b1 arena [0; 64] temporary
          b2 state [0; 64*ceil_div(4*C, 64)] cache
          b3 io [0; 16] tokens
          b4 io [64; 16] positions
          b5 io [128; 4] last
          b6 io [192; 40] logits
          b7 io [256; 64] sampling
          b8 io [320; 64*ceil_div(4*(C + 1), 64)] history

        kernels
          k0 append_0: cache append i32
          k1 predict_1: logits [1,10]
          k2 sample_2: sample f32[1,10]

        program prefill: 2 launches
          0: append_0 x T (b3, b4, b0, b2, T) -> b2
          1: predict_1 x 10 (b2, b5, b1, b6, S) -> b6 b1

        program decode: 3 launches
          0: append_0 x T (b3, b4, b0, b2, T) -> b2
          1: predict_1 x 10 (b2, b5, b1, b6, S) -> b6 b1
          2: sample_2 x 1 (b6, b7, b3, b4, b5, b8, S) -> b3 b4 b5 b8

        program sample: 1 launches
          0: sample_2 x 1 (b6, b7, b3, b4, b5, b8, S) -> b3 b4 b5 b8
        "#);
    }
}
