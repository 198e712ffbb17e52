//! NVIDIA's compute capability 9.0 with its own features: `wgmma`, bulk copies, `mbarrier`.

use super::warpgroup::{Multiply, Rows, Warpgroup};
use crate::mlir::{Builder, Elem, Value};
use crate::target::MatrixType;

/// The operations in PTX.
#[derive(Debug)]
pub(super) struct Hopper;

impl Warpgroup for Hopper {
    fn mbarrier_init(&self, k: &mut Builder, at: Value, count: u32) {
        let at = k.shared_address(at);
        statement(k, &format!("mbarrier.init.shared::cta.b64 [$0], {count};"), "r", &[at]);
    }

    fn mbarriers_ready(&self, k: &mut Builder) {
        statement(k, "fence.mbarrier_init.release.cluster;", "", &[]);
        statement(k, "fence.proxy.async.shared::cta;", "", &[]);
    }

    fn mbarrier_arrive(&self, k: &mut Builder, at: Value) {
        let at = k.shared_address(at);
        statement(k, "mbarrier.arrive.shared::cta.b64 _, [$0];", "r", &[at]);
    }

    fn mbarrier_expect(&self, k: &mut Builder, at: Value, bytes: Value) {
        let at = k.shared_address(at);
        let text = "mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], $1;";
        statement(k, text, "r,r", &[at, bytes]);
    }

    fn mbarrier_wait(&self, k: &mut Builder, at: Value, parity: Value) {
        let at = k.shared_address(at);
        // It gives up after a while: "potentially blocking".
        let text = lines(&[
            "{",
            ".reg .pred p;",
            "again:",
            "mbarrier.try_wait.parity.shared::cta.b64 p, [$0], $1;",
            "@p bra done;",
            "bra again;",
            "done:",
            "}",
        ]);
        statement(k, &text, "r,r", &[at, parity]);
    }

    fn copy_bulk(&self, k: &mut Builder, to: Value, from: Value, bytes: Value, at: Value) {
        let [to, at] = [to, at].map(|address| k.shared_address(address));
        let copy = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes";
        let text = format!("{copy} [$0], [$1], $2, [$3];");
        statement(k, &text, "r,l,r,r", &[to, from, bytes, at]);
    }

    fn registers(&self, k: &mut Builder, count: u32, more: bool) {
        let change = if more { "inc" } else { "dec" };
        statement(k, &format!("setmaxnreg.{change}.sync.aligned.u32 {count};"), "", &[]);
    }

    /// All in one statement, so that nothing comes between: until they are waited for, nobody may
    /// touch the registers of the sums, not even to move them.
    fn multiply(
        &self,
        k: &mut Builder,
        factors: MatrixType,
        products: &[Multiply],
        sums: &[Vec<Value>],
    ) -> Vec<Vec<Value>> {
        let ty = match factors {
            MatrixType::F16 => "f16",
            MatrixType::Bf16 => "bf16",
            MatrixType::F32 => unreachable!("no product of warpgroups takes f32"),
        };
        let count: usize = sums.iter().map(Vec::len).sum();
        let first = |set: usize| sums[..set].iter().map(Vec::len).sum::<usize>();
        let mut operands: Vec<(Value, &str)> = vec![];
        let mut operand = |value: Value, constraint| {
            operands.push((value, constraint));
            format!("${}", count + operands.len() - 1)
        };
        let mut text = vec![
            "{".to_string(),
            ".reg .pred p;".to_string(),
            "setp.eq.u32 p, 0, 0;".to_string(),
            "wgmma.fence.sync.aligned;".to_string(),
        ];
        for product in products {
            let set = &sums[product.sums];
            let columns = 2 * set.len();
            let list = |names: Vec<String>| format!("{{{}}}", names.join(", "));
            let d = list((0..set.len()).map(|i| format!("${}", first(product.sums) + i)).collect());
            // Not negated, not transposed; of registers there is nothing to transpose.
            let (a, b, rest) = match product.a {
                Rows::Shared(a) => (operand(a, "l"), operand(product.b, "l"), "1, 1, 0, 0"),
                Rows::Registers(a) => {
                    let a = list(a.map(|word| operand(word, "r")).to_vec());
                    (a, operand(product.b, "l"), "1, 1, 0")
                }
            };
            text.push(format!(
                "wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{ty}.{ty} {d}, {a}, {b}, p, {rest};"
            ));
        }
        text.extend(
            ["wgmma.commit_group.sync.aligned;", "wgmma.wait_group.sync.aligned 0;", "}"]
                .map(String::from),
        );
        let text = lines(&text.iter().map(String::as_str).collect::<Vec<_>>());
        let same: Vec<(Value, String)> = sums
            .iter()
            .flatten()
            .zip(0..)
            .map(|(sum, i): (_, u32)| (*sum, i.to_string()))
            .collect();
        let inputs: Vec<(Value, &str)> = operands
            .iter()
            .copied()
            .chain(same.iter().map(|(value, name)| (*value, name.as_str())))
            .collect();
        let outputs = vec!["=f"; count].join(",");
        let constraints: Vec<&str> = inputs.iter().map(|(_, constraint)| *constraint).collect();
        let constraints = format!("{outputs},{},~{{memory}}", constraints.join(","));
        let values: Vec<String> = inputs.iter().map(|(value, _)| value.to_string()).collect();
        let types: Vec<String> = inputs.iter().map(|(value, _)| value.ty.to_string()).collect();
        let structure = format!("!llvm.struct<({})>", vec!["f32"; count].join(", "));
        let result = k.structure(&structure, |to| {
            let (values, types) = (values.join(", "), types.join(", "));
            format!(
                "llvm.inline_asm has_side_effects \"{text}\", \"{constraints}\" {values} : \
                 ({types}) -> {to}"
            )
        });
        let mut end = 0;
        let of_set = |set: &Vec<Value>| {
            let first = end;
            end += set.len() as u32;
            (first..end).map(|i| k.member(&result, i, Elem::F32)).collect()
        };
        sums.iter().map(of_set).collect()
    }
}

/// Lines of PTX as MLIR's string wants them.
fn lines(text: &[&str]) -> String {
    text.join("\\0A")
}

/// A statement that memory depends on.
fn statement(k: &mut Builder, text: &str, constraints: &str, operands: &[Value]) {
    let values: Vec<String> = operands.iter().map(Value::to_string).collect();
    let types: Vec<String> = operands.iter().map(|v| v.ty.to_string()).collect();
    let memory = if constraints.is_empty() { "~{memory}" } else { ",~{memory}" };
    k.line(&format!(
        "llvm.inline_asm has_side_effects \"{text}\", \"{constraints}{memory}\" {} : ({}) -> ()",
        values.join(", "),
        types.join(", ")
    ));
}
