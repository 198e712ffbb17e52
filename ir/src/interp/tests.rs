//! Every op on numbers that can be checked by hand, and a whole model in both forms.

use super::*;
use crate::sample::Sampling;
use crate::testing::MadeUp;
use crate::text::parse;
use std::borrow::Cow;

struct NoWeights;

impl Weights for NoWeights {
    fn bytes(&self, _: &str) -> Option<Cow<'_, [u8]>> {
        None
    }
}

/// Runs one instruction, `%a` to `%d` being the inputs, as `@f`'s only one.
fn try_op<R: Real>(
    inst: &str,
    inputs: &[(&str, Tensor<R>)],
) -> Result<Vec<Tensor<R>>, InterpError> {
    let (_, types) = inst.rsplit_once(" : ").unwrap();
    let params: Vec<String> =
        inputs.iter().zip('a'..).map(|((ty, _), id)| format!("%{id}: {ty}")).collect();
    let results = ["%r", "%r, %s"][usize::from(inst.starts_with("top_k"))];
    let text = format!(
        "module @m {{ symbol T in 1..=9 symbol S in 1..=9 func @f({}) -> ({types}) {{
            {results} = {inst} return {results} }} }}",
        params.join(", ")
    );
    let module = parse(&text).unwrap_or_else(|e| panic!("{e} in {text}"));
    let tensors: Vec<Tensor<R>> = inputs.iter().map(|(_, tensor)| tensor.clone()).collect();
    Interpreter::new(&module, &NoWeights).run(FuncId(0), &tensors, &[])
}

fn op(inst: &str, inputs: &[(&str, Tensor<f32>)]) -> Tensor<f32> {
    try_op(inst, inputs).unwrap().remove(0)
}

fn error(inst: &str, inputs: &[(&str, Tensor<f32>)]) -> String {
    try_op(inst, inputs).unwrap_err().to_string()
}

fn f(shape: &[u64], values: &[f32]) -> Tensor<f32> {
    Tensor::reals(shape, values)
}

fn i(shape: &[u64], values: &[i32]) -> Tensor<f32> {
    Tensor::ints(shape, values)
}

fn close(a: &Tensor<f32>, b: &[f32]) -> bool {
    let a = a.as_reals().unwrap();
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs().max(1.0))
}

#[test]
fn unary() {
    let x = || [("f32[3]", f(&[3], &[-1.0, 0.25, 4.0]))];
    let half_pi = || [("f32[1]", f(&[1], &[std::f32::consts::FRAC_PI_2]))];
    assert!(close(&op("neg %a : f32[3]", &x()), &[1.0, -0.25, -4.0]));
    assert!(close(&op("abs %a : f32[3]", &x()), &[1.0, 0.25, 4.0]));
    assert!(close(&op("exp %a : f32[3]", &x()), &[0.36787944, 1.2840254, 54.59815]));
    assert!(close(&op("sigmoid %a : f32[3]", &x()), &[0.26894142, 0.5621765, 0.98201379]));
    assert!(close(&op("tanh %a : f32[3]", &x()), &[-0.7615942, 0.24491866, 0.9993293]));
    assert!(close(&op("sin %a : f32[1]", &half_pi()), &[1.0]));
    assert!(close(&op("cos %a : f32[1]", &half_pi()), &[0.0]));
    let positive = || [("f32[2]", f(&[2], &[0.25, 4.0]))];
    assert!(close(&op("sqrt %a : f32[2]", &positive()), &[0.5, 2.0]));
    assert!(close(&op("rsqrt %a : f32[2]", &positive()), &[2.0, 0.5]));
    assert!(close(&op("log %a : f32[2]", &positive()), &[-1.3862944, 1.3862944]));
    assert_eq!(
        op("neg %a : i32[2]", &[("i32[2]", i(&[2], &[3, i32::MIN]))]),
        i(&[2], &[-3, i32::MIN])
    );
}

#[test]
fn binary() {
    let ab = || [("f32[2, 1]", f(&[2, 1], &[1.0, 6.0])), ("f32[3]", f(&[3], &[1.0, 2.0, -4.0]))];
    let real = |name: &str| op(&format!("{name} %a, %b : f32[2, 3]"), &ab());
    let flags = |name: &str| op(&format!("{name} %a, %b : bool[2, 3]"), &ab());
    assert_eq!(real("add"), f(&[2, 3], &[2.0, 3.0, -3.0, 7.0, 8.0, 2.0]));
    assert_eq!(real("sub"), f(&[2, 3], &[0.0, -1.0, 5.0, 5.0, 4.0, 10.0]));
    assert_eq!(real("mul"), f(&[2, 3], &[1.0, 2.0, -4.0, 6.0, 12.0, -24.0]));
    assert_eq!(real("div"), f(&[2, 3], &[1.0, 0.5, -0.25, 6.0, 3.0, -1.5]));
    assert_eq!(real("max"), f(&[2, 3], &[1.0, 2.0, 1.0, 6.0, 6.0, 6.0]));
    assert_eq!(real("min"), f(&[2, 3], &[1.0, 1.0, -4.0, 1.0, 2.0, -4.0]));
    assert_eq!(flags("lt"), Tensor::bools([2, 3], [false, true, false, false, false, false]));
    assert_eq!(flags("le"), Tensor::bools([2, 3], [true, true, false, false, false, false]));
}

#[test]
fn binary_of_integers_and_flags() {
    let ab = || [("i32[3]", i(&[3], &[7, -7, 3])), ("i32[3]", i(&[3], &[2, 2, -3]))];
    let int = |name: &str| op(&format!("{name} %a, %b : i32[3]"), &ab());
    assert_eq!(int("add"), i(&[3], &[9, -5, 0]));
    assert_eq!(int("sub"), i(&[3], &[5, -9, 6]));
    assert_eq!(int("mul"), i(&[3], &[14, -14, -9]));
    assert_eq!(int("div"), i(&[3], &[3, -3, -1]));
    assert_eq!(int("max"), i(&[3], &[7, 2, 3]));
    assert_eq!(int("min"), i(&[3], &[2, -7, -3]));
    assert_eq!(op("le %a, %b : bool[3]", &ab()), Tensor::bools([3], [false, true, false]));
    let zero = [("i32[1]", i(&[1], &[1])), ("i32[1]", i(&[1], &[0]))];
    insta::assert_snapshot!(error("div %a, %b : i32[1]", &zero), @"%2 = div in @f: an integer is divided by zero");
    let flags = || {
        [
            ("bool[4]", Tensor::bools([4], [false, false, true, true])),
            ("bool[4]", Tensor::bools([4], [false, true, false, true])),
        ]
    };
    assert_eq!(
        op("and %a, %b : bool[4]", &flags()),
        Tensor::bools([4], [false, false, false, true])
    );
    assert_eq!(op("or %a, %b : bool[4]", &flags()), Tensor::bools([4], [false, true, true, true]));
}

#[test]
fn constants_and_selection() {
    assert_eq!(op("constant {value = -2.7, ty = i32[2]} : i32[2]", &[]), i(&[2], &[-2, -2]));
    assert_eq!(op("constant {value = 2.5, ty = f32[]} : f32[]", &[]), f(&[], &[2.5]));
    // 0.1 in bf16 is 0x3dcd.
    assert_eq!(op("constant {value = 0.1, ty = bf16[1]} : bf16[1]", &[]), f(&[1], &[0.100097656]));
    assert_eq!(op("iota {len = 4} : i32[4]", &[]), i(&[4], &[0, 1, 2, 3]));
    let abc = [
        ("bool[2, 1]", Tensor::bools([2, 1], [true, false])),
        ("f32[2]", f(&[2], &[1.0, 2.0])),
        ("f32[]", f(&[], &[9.0])),
    ];
    assert_eq!(op("select %a, %b, %c : f32[2, 2]", &abc), f(&[2, 2], &[1.0, 2.0, 9.0, 9.0]));
}

#[test]
fn reductions() {
    let x =
        || [("f32[2, 3, 2]", f(&[2, 3, 2], &[1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12.]))];
    assert_eq!(
        op("reduce_sum %a {axis = 1} : f32[2, 1, 2]", &x()),
        f(&[2, 1, 2], &[9., 12., 27., 30.])
    );
    assert_eq!(
        op("reduce_mean %a {axis = 0} : f32[1, 3, 2]", &x()),
        f(&[1, 3, 2], &[4., 5., 6., 7., 8., 9.])
    );
    assert_eq!(
        op("reduce_max %a {axis = 2} : f32[2, 3, 1]", &x()),
        f(&[2, 3, 1], &[2., 4., 6., 8., 10., 12.])
    );
}

#[test]
fn matmul() {
    let ab = [
        ("f32[2, 1, 2]", f(&[2, 1, 2], &[1., 2., 3., 4.])),
        ("f32[2, 2, 3]", f(&[2, 2, 3], &[1., 0., 2., 0., 1., 3., 1., 1., 1., 2., 2., 2.])),
    ];
    assert_eq!(
        op("matmul %a, %b : f32[2, 1, 3]", &ab),
        f(&[2, 1, 3], &[1., 2., 8., 11., 11., 11.])
    );
}

#[test]
fn movement() {
    let x = || [("f32[2, 3]", f(&[2, 3], &[1., 2., 3., 4., 5., 6.]))];
    assert_eq!(
        op("transpose %a {perm = [1, 0]} : f32[3, 2]", &x()),
        f(&[3, 2], &[1., 4., 2., 5., 3., 6.])
    );
    assert_eq!(
        op("reshape %a {shape = [3, 2]} : f32[3, 2]", &x()),
        f(&[3, 2], &[1., 2., 3., 4., 5., 6.])
    );
    assert_eq!(
        op("slice %a {axis = 1, start = 1, len = 2} : f32[2, 2]", &x()),
        f(&[2, 2], &[2., 3., 5., 6.])
    );
    let ab = [x()[0].clone(), ("f32[2, 1]", f(&[2, 1], &[8., 9.]))];
    assert_eq!(
        op("concat %a, %b {axis = 1} : f32[2, 4]", &ab),
        f(&[2, 4], &[1., 2., 3., 8., 4., 5., 6., 9.])
    );
    let column = [("f32[2, 1]", f(&[2, 1], &[8., 9.]))];
    assert_eq!(
        op("broadcast %a {shape = [2, 2, 2]} : f32[2, 2, 2]", &column),
        f(&[2, 2, 2], &[8., 8., 9., 9., 8., 8., 9., 9.])
    );
    let permuted = [("f32[1, 2, 3]", f(&[1, 2, 3], &[1., 2., 3., 4., 5., 6.]))];
    assert_eq!(
        op("transpose %a {perm = [2, 0, 1]} : f32[3, 1, 2]", &permuted),
        f(&[3, 1, 2], &[1., 4., 2., 5., 3., 6.])
    );
}

#[test]
fn rows() {
    let table = ("f32[3, 2]", f(&[3, 2], &[1., 2., 3., 4., 5., 6.]));
    let picked = |indices: &[i32]| [table.clone(), ("i32[2]", i(&[2], indices))];
    let expected = f(&[2, 2], &[5., 6., 1., 2.]);
    assert_eq!(op("gather %a, %b : f32[2, 2]", &picked(&[2, 0])), expected);
    assert_eq!(op("embed %a, %b : f32[2, 2]", &picked(&[2, 0])), expected);
    insta::assert_snapshot!(error("gather %a, %b : f32[2, 2]", &picked(&[0, 3])), @"%2 = gather in @f: index 3 is not in 0..3");
    insta::assert_snapshot!(error("embed %a, %b : f32[2, 2]", &picked(&[-1, 0])), @"%2 = embed in @f: index -1 is not in 0..3");
}

#[test]
fn casts() {
    let x = || [("f32[4]", f(&[4], &[0.5, 1.5, -2.5, 300.0]))];
    assert_eq!(op("cast %a {dtype = i32} : i32[4]", &x()), i(&[4], &[0, 2, -2, 300]));
    assert_eq!(op("cast %a {dtype = i8} : i8[4]", &x()), i(&[4], &[0, 2, -2, 127]));
    assert_eq!(op("cast %a {dtype = u8} : u8[4]", &x()), i(&[4], &[0, 2, 0, 255]));
    assert_eq!(op("cast %a {dtype = f8e4m3} : f8e4m3[4]", &x()), f(&[4], &[0.5, 1.5, -2.5, 288.0]));
    assert_eq!(op("cast %a {dtype = bool} : bool[4]", &x()), Tensor::bools([4], [true; 4]));
    let third = [("f32[1]", f(&[1], &[1.0 / 3.0]))];
    assert_eq!(op("cast %a {dtype = f16} : f16[1]", &third), f(&[1], &[0.33325195]));
    let third = [("f32[1]", Tensor::<f64>::reals([1], [1.0 / 3.0]))];
    assert_eq!(try_op("cast %a {dtype = f32} : f32[1]", &third).unwrap()[0], third[0].1);
}

#[test]
fn top_k_orders_ties_by_index() {
    let x = [("f32[2, 4]", f(&[2, 4], &[1., 3., 3., 2., f32::NAN, -1., 0., -1.]))];
    let results = try_op("top_k %a {k = 3} : f32[2, 3], i32[2, 3]", &x).unwrap();
    assert_eq!(results[0], f(&[2, 3], &[3., 3., 2., 0., -1., -1.]));
    assert_eq!(results[1], i(&[2, 3], &[1, 2, 3, 2, 1, 3]));
}

#[test]
fn cache_append_rounds_to_the_cache() {
    let cache = ("f16[3, 2]", f(&[3, 2], &[0.0; 6]));
    let inputs = |positions: &[i32]| {
        [
            cache.clone(),
            ("f32[2, 2]", f(&[2, 2], &[1.0 / 3.0, 2.0, 3.0, 1e9])),
            ("i32[2]", i(&[2], positions)),
        ]
    };
    assert_eq!(
        op("cache_append %a, %b, %c : f16[3, 2]", &inputs(&[2, 0])),
        f(&[3, 2], &[3.0, f32::INFINITY, 0.0, 0.0, 0.33325195, 2.0])
    );
    insta::assert_snapshot!(error("cache_append %a, %b, %c : f16[3, 2]", &inputs(&[0, 3])), @"%3 = cache_append in @f: index 3 is not in 0..3");
}

#[test]
fn norm_and_rope() {
    // Mean of squares 12.5 and 0.5 to make roots of 13 and 1.
    let x = ("f32[2, 2]", f(&[2, 2], &[3., 4., 1., 0.]));
    let normed = op("norm %a, %b {eps = 0.5} : f32[2, 2]", &[x, ("f32[2]", f(&[2], &[1., 2.]))]);
    let root = 13f32.sqrt();
    assert!(close(&normed, &[3. / root, 8. / root, 1., 0.]), "{normed:?}");
    let rotated = op(
        "rope %a, %b, %c : f32[1, 2, 4]",
        &[
            ("f32[1, 2, 4]", f(&[1, 2, 4], &[1., 2., 3., 4., 5., 6., 7., 8.])),
            ("f32[1, 2]", f(&[1, 2], &[0., 0.6])),
            ("f32[1, 2]", f(&[1, 2], &[1., 0.8])),
        ],
    );
    let expected = [-3., 1.2 - 3.2, 1., 2.4 + 1.6, -7., 3.6 - 6.4, 5., 4.8 + 4.8];
    assert!(close(&rotated, &expected), "{rotated:?}");
}

#[test]
fn map() {
    let inputs = [
        ("f32[2, 2]", f(&[2, 2], &[1., -2., 3., -4.])),
        ("i32[2, 1]", i(&[2, 1], &[10, 20])),
        ("f32[2]", f(&[2], &[0.5, 2.0])),
    ];
    assert_eq!(
        op("map %a, %b, %c {expr = (add (mul $0 $2) (max $1 15.0))} : f32[2, 2]", &inputs),
        f(&[2, 2], &[15.5, 11.0, 21.5, 12.0])
    );
    assert_eq!(
        op("map %a, %b, %c {expr = (or (lt $0 0.0) (le 20.0 $1))} : f32[2, 2]", &inputs),
        f(&[2, 2], &[0., 1., 1., 1.])
    );
}

#[test]
fn gemm() {
    let x = ("f32[2, 2]", f(&[2, 2], &[1., 2., 3., 4.]));
    let w = ("f32[3, 2]", f(&[3, 2], &[1., 0., 0., 1., 1., 1.]));
    let inputs = [x.clone(), w.clone(), ("f32[3]", f(&[3], &[10., 20., 30.]))];
    assert_eq!(
        op("gemm %a, %b, %c {weights = 1, outputs = [(add #0 $0)]} : f32[2, 3]", &inputs),
        f(&[2, 3], &[11., 22., 33., 13., 24., 37.])
    );
    let normed = op(
        "gemm %a, %b, %c {weights = 1, prologue = rms_norm(0.5), outputs = [#0]} : f32[1, 1]",
        &[
            ("f32[1, 2]", f(&[1, 2], &[3., 4.])),
            ("f32[2]", f(&[2], &[1., 2.])),
            ("f32[1, 2]", f(&[1, 2], &[1., 1.])),
        ],
    );
    assert!(close(&normed, &[11. / 13f32.sqrt()]));
}

#[test]
fn gemm_outputs() {
    // Heads of two columns: rotated by a quarter turn, normalized, and appended at row 1.
    let inputs = [
        ("f32[1, 2]", f(&[1, 2], &[1., 1.])),
        ("f32[4, 2]", f(&[4, 2], &[1., 0., 2., 0., 3., 0., 4., 0.])),
        ("f32[1, 1]", f(&[1, 1], &[0.])),
        ("f32[1, 1]", f(&[1, 1], &[1.])),
    ];
    assert_eq!(
        op("gemm %a, %b, %c, %d {weights = 1, outputs = [(rope #0 $0 $1 2)]} : f32[1, 4]", &inputs),
        f(&[1, 4], &[-2., 1., -4., 3.])
    );
    let inputs = [inputs[0].clone(), inputs[1].clone(), ("f32[2]", f(&[2], &[1., 10.]))];
    let normed = op(
        "gemm %a, %b, %c {weights = 1, outputs = [(head_norm #0 $0 0.0 2)]} : f32[1, 4]",
        &inputs,
    );
    let (first, second) = (2.5f32.sqrt(), 12.5f32.sqrt());
    assert!(close(&normed, &[1. / first, 20. / first, 3. / second, 40. / second]));
    let inputs = [
        inputs[0].clone(),
        inputs[1].clone(),
        ("f16[2, 2, 2]", f(&[2, 2, 2], &[9.; 8])),
        ("i32[1]", i(&[1], &[1])),
    ];
    assert_eq!(
        op(
            "gemm %a, %b, %c, %d {weights = 1, outputs = [#0 -> append($0, $1)]} : f16[2, 2, 2]",
            &inputs
        ),
        f(&[2, 2, 2], &[9., 9., 9., 9., 1., 2., 3., 4.])
    );
}

#[test]
fn attention() {
    // One KV head of two columns, two query heads; scores are multiples of ln 2 so that the
    // weights are powers of two.
    let ln2 = std::f32::consts::LN_2;
    let run = |rest: &str, position: i32| {
        let inputs = [
            ("f32[1, 4]", f(&[1, 4], &[ln2, 0., 0., ln2])),
            ("f32[3, 1, 2]", f(&[3, 1, 2], &[0., 0., 1., 0., 0., 1.])),
            ("f32[3, 1, 2]", f(&[3, 1, 2], &[4., 0., 0., 8., 16., 0.])),
            ("i32[1]", i(&[1], &[position])),
        ];
        let attr = format!("heads = 2, kv_heads = 1, head_dim = 2, scale = 1.0{rest}");
        try_op(&format!("attention %a, %b, %c, %d {{{attr}}} : f32[1, 4]"), &inputs)
    };
    let check = |rest: &str, position: i32, expected: [f32; 4]| {
        let found = run(rest, position).unwrap().remove(0);
        assert!(close(&found, &expected), "{found:?}");
    };
    check("", 0, [4., 0., 4., 0.]);
    // Head 0 has weights 1, 2, 1 and head 1 weights 1, 1, 2.
    check("", 2, [5., 4., 9., 2.]);
    check(", window = 2", 2, [16. / 3., 16. / 3., 32. / 3., 8. / 3.]);
    // The cap of ln 2 takes a score of ln 2 to tanh(1) · ln 2.
    let weight = 2f32.powf(1f32.tanh());
    let head0 = [20. / (2. + weight), 8. * weight / (2. + weight)];
    let head1 = [(4. + 16. * weight) / (2. + weight), 8. / (2. + weight)];
    check(", softcap = 0.6931472", 2, [head0[0], head0[1], head1[0], head1[1]]);
    insta::assert_snapshot!(run("", 3).unwrap_err(), @"%4 = attention in @f: index 3 is not in 0..3");
}

#[test]
fn sample_draws_by_counter() {
    let logits = ("f32[1, 3]", f(&[1, 3], &[0.0, 2.0, 1.0]));
    let draw = |sampling: Sampling, counter: i32| {
        let inputs = [
            logits.clone(),
            ("i32[16]", i(&[16], &sampling.to_words())),
            ("i32[1]", i(&[1], &[counter])),
            ("i32[2]", i(&[2], &[1, 0])),
        ];
        op("sample %a, %b, %c, %d : i32[1]", &inputs)
    };
    assert_eq!(draw(Sampling::GREEDY, 5), i(&[1], &[1]));
    let warm = Sampling { temperature: 1.0, seed: 7, ..Sampling::GREEDY };
    let expected =
        |counter: u32| crate::sample::draw(&[0.0f32, 2.0, 1.0], &[], &warm, counter).unwrap();
    for counter in 0..50 {
        assert_eq!(draw(warm, counter as i32), i(&[1], &[expected(counter) as i32]));
    }
    // Of the history only what is before the position counts.
    let penalized = Sampling { presence_penalty: 9.0, ..Sampling::GREEDY };
    assert_eq!(draw(penalized, 0), i(&[1], &[1]));
    assert_eq!(draw(penalized, 1), i(&[1], &[2]));
}

#[test]
fn inputs_are_checked() {
    let add = |inputs: &[(&str, Tensor<f32>)]| error("add %a, %b : f32[T, 2]", inputs);
    let a = ("f32[T, 2]", f(&[3, 2], &[0.0; 6]));
    let b = |tensor| [a.clone(), ("f32[T, 2]", tensor)];
    insta::assert_snapshot!(add(&b(f(&[4, 2], &[0.0; 8]))), @"input 1 of @f: the parameter has shape [3, 2], the input [4, 2]");
    insta::assert_snapshot!(add(&b(f(&[3], &[0.0; 3]))), @"input 1 of @f: the parameter has rank 2, the input is [3]");
    insta::assert_snapshot!(add(&b(i(&[3, 2], &[0; 6]))), @"input 1 of @f: the parameter is f32, the elements are not");
    insta::assert_snapshot!(add(&b(f(&[3, 2], &[0.0; 5]))), @"input 1 of @f: shape [3, 2], but 5 elements");
    let long = [("f32[T, 2]", f(&[10, 2], &[0.0; 20])), ("f32[T, 2]", f(&[10, 2], &[0.0; 20]))];
    insta::assert_snapshot!(add(&long), @"symbol T is bound to 10, which is not in 1..=9");
    insta::assert_snapshot!(error("iota {len = S} : i32[S]", &[]), @"%0 = iota in @f: symbol S has no extent: no input shows it, bind it");
    insta::assert_snapshot!(error("iota {len = 9999999999} : i32[9999999999]", &[]), @"%0 = iota in @f: a value of shape [9999999999] is too large to interpret");
}

#[test]
fn weights_are_read_and_missed() {
    let text = "module @m { weight @w : q8_0[2, 32] from f32
        func @f() -> (f32[2, 32]) {
            %w = weight {weight = @w} : q8_0[2, 32] %r = dequantize %w : f32[2, 32] return %r } }";
    let module = parse(text).unwrap();
    let source = MadeUp(&module);
    let read = Interpreter::<f64>::new(&module, &source).run(FuncId(0), &[], &[]).unwrap();
    let stored = source.bytes("w").unwrap();
    let bytes = storage::convert(DType::F32, DType::Q8_0, &stored).unwrap();
    let mut expected = vec![0.0; 64];
    storage::dequantize(DType::Q8_0, &bytes, &mut expected).unwrap();
    assert_eq!(read[0].to_reals(), expected.into_iter().map(f64::from).collect::<Vec<_>>());
    let missing = Interpreter::<f32>::new(&module, &NoWeights).run(FuncId(0), &[], &[]);
    insta::assert_snapshot!(missing.unwrap_err(), @"the model has no weight `w`");
}

const TENSOR: &str = include_str!("../../tests/fixtures/llama.tensor.wl");
const MACRO: &str = include_str!("../../tests/fixtures/llama.macro.wl");

/// Inputs of `@step`: four caches of 16 rows after the tokens.
fn step_inputs<R: Real>(tokens: &[i32], first: i32, caches: &[Tensor<R>]) -> Vec<Tensor<R>> {
    let count = tokens.len();
    let positions: Vec<i32> = (first..first + count as i32).collect();
    let mut inputs = vec![
        Tensor::ints([count as u64], tokens),
        Tensor::ints([count as u64], positions),
        Tensor::ints([1], [count as i32 - 1]),
    ];
    inputs.extend_from_slice(caches);
    inputs
}

fn empty_caches<R: Real>() -> Vec<Tensor<R>> {
    vec![Tensor::reals([16, 1, 4], [R::default(); 64]); 4]
}

/// Logits of a prompt of five tokens and of two tokens that follow.
fn model_logits<R: Real>(text: &str) -> Vec<R> {
    let module = parse(text).unwrap();
    let (step, symbol) = (module.function("step").unwrap(), module.symbol("S").unwrap());
    let source = MadeUp(&module);
    let interpreter = Interpreter::<R>::new(&module, &source);
    let mut caches = empty_caches();
    let mut logits = vec![];
    for (tokens, first) in [(&[3, 1, 4, 1, 5][..], 0), (&[9][..], 5), (&[2][..], 6)] {
        let end = first as u64 + tokens.len() as u64;
        let inputs = step_inputs(tokens, first, &caches);
        let mut results = interpreter.run(step, &inputs, &[(symbol, end)]).unwrap();
        caches = results.split_off(1);
        logits.extend_from_slice(results[0].as_reals().unwrap());
    }
    logits
}

/// Relative to the largest.
fn difference<A: Real, B: Real>(a: &[A], b: &[B]) -> f64 {
    assert_eq!(a.len(), b.len());
    let largest = a.iter().fold(0.0, |m: f64, x| m.max(x.to_f64().abs()));
    let apart = |(x, y): (&A, &B)| (x.to_f64() - y.to_f64()).abs();
    a.iter().zip(b).map(apart).fold(0.0, f64::max) / largest
}

/// Attention, norms, rotary embedding and SwiGLU from primitives and as macro-ops are one model.
#[test]
fn a_model_in_both_forms() {
    let exact = model_logits::<f64>(TENSOR);
    assert_eq!(exact.len(), 3 * 11);
    // The two forms differ in the order of sums: a few units in the last place of f64, of f32.
    assert!(difference(&exact, &model_logits::<f64>(MACRO)) < 1e-14);
    assert!(difference(&exact, &model_logits::<f32>(TENSOR)) < 1e-5);
    assert!(difference(&exact, &model_logits::<f32>(MACRO)) < 1e-5);
}

/// Prefill in one step and token by token give the same logits.
#[test]
fn prefill_equals_decode() {
    let module = parse(MACRO).unwrap();
    let (step, symbol) = (module.function("step").unwrap(), module.symbol("S").unwrap());
    let source = MadeUp(&module);
    let interpreter = Interpreter::<f64>::new(&module, &source);
    let tokens = [3, 1, 4, 1, 5, 9];
    let inputs = step_inputs(&tokens, 0, &empty_caches());
    let whole = interpreter.run(step, &inputs, &[(symbol, 6)]).unwrap();
    let mut results = empty_caches();
    results.insert(0, Tensor::reals([0], []));
    for (position, token) in tokens.iter().enumerate() {
        let inputs = step_inputs(&[*token], position as i32, &results[1..]);
        results = interpreter.run(step, &inputs, &[(symbol, position as u64 + 1)]).unwrap();
    }
    for (a, b) in whole.iter().zip(&results) {
        assert!(difference(a.as_reals().unwrap(), b.as_reals().unwrap()) < 1e-13);
    }
}

fn generate(prompt: &[i32], sampling: Sampling, stop_tokens: &[u32]) -> Vec<i32> {
    let list: Vec<String> = stop_tokens.iter().map(u32::to_string).collect();
    let stop = format!("stop_tokens = [{}]", list.join(", "));
    let module = parse(&MACRO.replace("stop_tokens = [0]", &stop)).unwrap();
    let (func, context) = (module.function("generate").unwrap(), module.symbol("C").unwrap());
    let inputs =
        [Tensor::ints([prompt.len() as u64], prompt), Tensor::ints([16], sampling.to_words())];
    let source = MadeUp(&module);
    let interpreter = Interpreter::<f64>::new(&module, &source);
    let tokens = interpreter.run(func, &inputs, &[(context, 16)]).unwrap();
    tokens[0].as_ints().unwrap().to_vec()
}

#[test]
fn the_decode_loop_is_what_a_host_does() {
    let module = parse(TENSOR).unwrap();
    let (step, symbol) = (module.function("step").unwrap(), module.symbol("S").unwrap());
    let source = MadeUp(&module);
    let interpreter = Interpreter::<f64>::new(&module, &source);
    let sampling =
        Sampling { temperature: 0.8, top_k: 6, top_p: 0.95, seed: 3, ..Sampling::GREEDY };
    let mut history = vec![3, 1, 4];
    let mut next = history.clone();
    let mut caches = empty_caches();
    while history.len() < 16 {
        let first = (history.len() - next.len()) as i32;
        let end = history.len() as u64;
        let inputs = step_inputs(&next, first, &caches);
        let mut results = interpreter.run(step, &inputs, &[(symbol, end)]).unwrap();
        caches = results.split_off(1);
        let logits = results[0].as_reals().unwrap();
        let logits: Vec<f32> = logits.iter().map(|&x| x as f32).collect();
        next = vec![crate::sample::draw(&logits, &history, &sampling, end as u32).unwrap() as i32];
        history.push(next[0]);
    }
    assert_eq!(generate(&[3, 1, 4], sampling, &[]), history);
    // A stop token ends the text and is no part of it.
    let stop = history[9];
    let end = (3..16).find(|&i| history[i] == stop).unwrap();
    let mut stopped = history[..end].to_vec();
    stopped.resize(16, -1);
    assert_eq!(generate(&[3, 1, 4], sampling, &[stop as u32]), stopped);
}
