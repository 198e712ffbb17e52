//! An explanation for people.

use super::{Explanation, KernelUse, MemoryUse, Times};

impl Explanation {
    /// The explanation; memory for these numbers of sequences at a time.
    pub fn text(&self, sequences: &[u64]) -> String {
        let Explanation { model, target, description, requires, .. } = self;
        let mut text = format!("{model} on {target} ({description})\n");
        text += &format!("needs {}\n", requires.join(" "));
        text += "\ninstructions\n";
        for instruction in &self.instructions {
            let how = match (&instruction.native, &instruction.instead) {
                (Some(native), _) => native.clone(),
                (None, instead) => format!("none: {}", instead.clone().unwrap_or_default()),
            };
            text += &format!("  {}: {how}\n", instruction.purpose);
        }
        text += &self.weights_text();
        text += "\nproducts\n";
        for kernel in &self.kernels {
            text += &kernel_text(kernel);
        }
        let others: Vec<&str> = self
            .kernels
            .iter()
            .filter(|kernel| kernel.units.is_none())
            .map(|kernel| kernel.name.as_str())
            .collect();
        text += &format!("  others, in f32: {}\n", others.join(", "));
        let persistent = &self.persistent;
        let available = if persistent.available { "available" } else { "not available" };
        text += &format!("\ndecode step as one kernel: {available}: {}\n", persistent.why);
        text += &self.memory_text(sequences);
        text + &self.times_text()
    }

    fn weights_text(&self) -> String {
        let mut text = "\nweights\n".to_string();
        for weight in &self.weights {
            let form = match &weight.why {
                None => format!("{}, as stored", weight.stored),
                Some(why) => format!("{} -> {}: {why}", weight.stored, weight.used),
            };
            text += &format!("  {} of {}, {form}\n", weight.count, size(weight.bytes));
        }
        text
    }

    fn memory_text(&self, sequences: &[u64]) -> String {
        let mut rows: Vec<Vec<String>> =
            vec![["  context".to_string(), "a sequence".to_string()].into()];
        rows[0].extend(sequences.iter().map(|n| format!("{n} at a time")));
        for MemoryUse { context, per_sequence, .. } in &self.memory {
            rows.push(vec![format!("  {context}"), size(*per_sequence)]);
        }
        for (row, memory) in rows[1..].iter_mut().zip(&self.memory) {
            row.extend(sequences.iter().map(|n| size(memory.total(*n))));
        }
        let shared = self.memory.first().map_or(0, |memory| memory.shared);
        format!(
            "\nmemory: {} of weights, activations and scratch once, KV cache and exchange for each sequence\n{}",
            size(shared),
            columns(&rows)
        )
    }

    fn times_text(&self) -> String {
        if self.times.is_empty() {
            return "\nno prediction: the target is no certain hardware\n".to_string();
        }
        let title = ["  context", "decode ms", "tokens/s", "prefill ms", "of tokens"];
        let mut rows = vec![title.map(str::to_string).to_vec()];
        for Times { context, decode, prefill, prefill_tokens } in &self.times {
            rows.push(vec![
                format!("  {context}"),
                format!("{:.3}", decode * 1e3),
                format!("{:.0}", 1.0 / decode.max(1e-12)),
                format!("{:.2}", prefill * 1e3),
                prefill_tokens.to_string(),
            ]);
        }
        format!(
            "\ntime at least, by the roofline of nominal figures, the context full\n{}",
            columns(&rows)
        )
    }
}

/// A kernel that multiplies, in two lines.
fn kernel_text(kernel: &KernelUse) -> String {
    let (Some(units), Some(arithmetic)) = (kernel.units, &kernel.arithmetic) else {
        return String::new();
    };
    let launches = kernel.launches.iter().map(|(program, count)| format!("{program} {count}"));
    let launches = launches.collect::<Vec<_>>().join(", ");
    let why = kernel.why.as_ref().map_or_else(String::new, |why| format!("; {why}"));
    format!(
        "  {} ({launches}): {}\n    {units} units: {arithmetic}{why}\n",
        kernel.name, kernel.summary
    )
}

/// Bytes in MiB, which are easily added up; in KiB where there are few.
fn size(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib >= 1.0 { format!("{mib:.1} MiB") } else { format!("{:.1} KiB", mib * 1024.0) }
}

/// Rows as columns, the first to the left.
fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(String::len).max();
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}
