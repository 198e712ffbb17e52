//! What each rule refuses, in its own words. What the rules accept is all over the other tests.

use crate::text::parse;

/// The message for one instruction on `%a`, `%b`, … of these types, separated by `; `.
fn refused(types: &str, inst: &str) -> String {
    let params: Vec<String> =
        types.split("; ").zip('a'..).map(|(ty, id)| format!("%{id}: {ty}")).collect();
    let text = format!(
        "module @m {{ symbol T in 1..=4 symbol C in 8..=16
           func @callee(%x: f32[T]) -> (f32[T]) {{ return %x }}
           func @f({}) -> () {{ {inst} : () return }} }}",
        params.join(", ")
    );
    let error = parse(&text).expect_err("the rule accepts it").to_string();
    error.split_once(": ").unwrap().1.to_string()
}

#[test]
fn elementwise() {
    insta::assert_snapshot!(refused("i32[2]", "exp %a"), @"`exp`: wants f32, found i32");
    insta::assert_snapshot!(refused("f16[2]", "exp %a"), @"`exp`: wants f32, found f16");
    insta::assert_snapshot!(refused("f32[2]; i32[2]", "add %a, %b"), @"`add`: operands are f32 and i32");
    insta::assert_snapshot!(refused("f32[2]; f32[3]", "add %a, %b"), @"`add`: shapes do not broadcast at dimension 0");
    insta::assert_snapshot!(refused("f32[T]; f32[C]", "add %a, %b"), @"`add`: shapes do not broadcast at dimension 0");
    insta::assert_snapshot!(refused("f32[2]; f32[2]", "and %a, %b"), @"`and`: does not take f32");
    insta::assert_snapshot!(refused("bool[2]; bool[2]", "lt %a, %b"), @"`lt`: does not take bool");
    insta::assert_snapshot!(refused("f32[2]; f32[2]; f32[2]", "select %a, %b, %c"), @"`select`: the condition is not bool");
    insta::assert_snapshot!(refused("bool[2]; f32[2]; i32[2]", "select %a, %b, %c"), @"`select`: the two values differ in dtype");
    insta::assert_snapshot!(refused("bool[32]; q8_0[32]; q8_0[32]", "select %a, %b, %c"), @"`select`: cannot select blocks");
    insta::assert_snapshot!(refused("q8_0[32]", "cast %a {dtype = f32}"), @"`cast`: converts plain dtypes only; blocks are read by `dequantize`");
    insta::assert_snapshot!(refused("i32[2]", "dequantize %a"), @"`dequantize`: wants stored real numbers, found i32");
}

#[test]
fn shapes() {
    insta::assert_snapshot!(refused("f32[T, 4]", "reshape %a {shape = [T, 5]}"), @"`reshape`: the number of elements changes");
    insta::assert_snapshot!(refused("q8_0[2, 32]", "reshape %a {shape = [64]}"), @"`reshape`: cannot reshape blocks");
    insta::assert_snapshot!(refused("f32[2]", "broadcast %a {shape = [3]}"), @"`broadcast`: shapes do not broadcast at dimension 0");
    insta::assert_snapshot!(refused("f32[2, 2]", "broadcast %a {shape = [2]}"), @"`broadcast`: the operand does not repeat to the shape");
    insta::assert_snapshot!(refused("f32[2, 2]", "transpose %a {perm = [0, 0]}"), @"`transpose`: not a permutation");
    insta::assert_snapshot!(refused("f32[4]", "slice %a {axis = 0, start = 2, len = 3}"), @"`slice`: reaches past the operand");
    insta::assert_snapshot!(refused("f32[4]", "slice %a {axis = 0, start = 1, len = T}"), @"`slice`: reaches past the operand");
    insta::assert_snapshot!(refused("f32[T]", "slice %a {axis = 0, start = 0, len = C}"), @"`slice`: reaches past the operand");
    insta::assert_snapshot!(refused("f32[C]", "slice %a {axis = 0, start = 6, len = 3}"), @"`slice`: reaches past the operand");
    insta::assert_snapshot!(refused("f32[2]; f32[T]", "concat %a, %b {axis = 0}"), @"`concat`: the joined extent is symbolic");
    insta::assert_snapshot!(refused("f32[2, 3]; f32[2, 4]", "concat %a, %b {axis = 0}"), @"`concat`: operands differ in more than the joined extent");
    insta::assert_snapshot!(refused("f32[2]", "concat %a {axis = 1}"), @"`concat`: axis 1 of a rank-1 tensor");
    insta::assert_snapshot!(refused("f32[2]", "reduce_sum %a {axis = 1}"), @"`reduce_sum`: axis 1 of a rank-1 tensor");
    insta::assert_snapshot!(refused("f32[2]", "top_k %a {k = 3}"), @"`top_k`: fewer than 3 elements");
    insta::assert_snapshot!(refused("f32[2]", "constant {value = 1.0, ty = q8_0[32]}"), @"`constant`: a constant cannot be q8_0");
}

#[test]
fn rows_and_products() {
    insta::assert_snapshot!(refused("f32[2, 3]; f32[4, 2]", "matmul %a, %b"), @"`matmul`: the reduced extents differ");
    insta::assert_snapshot!(refused("f32[3]; f32[3]", "matmul %a, %b"), @"`matmul`: wants two tensors of equal rank, 2 or more");
    insta::assert_snapshot!(refused("f32[1, 2, 3]; f32[2, 3, 2]", "matmul %a, %b"), @"`matmul`: leading extents differ");
    insta::assert_snapshot!(refused("f32[4]; f32[2]", "gather %a, %b"), @"`gather`: indices are not i32");
    insta::assert_snapshot!(refused("q8_0[32]; i32[2]", "gather %a, %b"), @"`gather`: the table has no rows");
    insta::assert_snapshot!(refused("f32[C, 2]; f32[T, 3]; i32[T]", "cache_append %a, %b, %c"), @"`cache_append`: rows differ in shape");
    insta::assert_snapshot!(refused("f32[C, 2]; f32[T, 2]; i32[2]", "cache_append %a, %b, %c"), @"`cache_append`: positions are not one i32 per new row");
    insta::assert_snapshot!(refused("f32[2]", "call %a {func = @callee}"), @"`call`: argument 0 is not of @callee's type");
    insta::assert_snapshot!(refused("f32[T]; f32[T]", "call %a, %b {func = @callee}"), @"`call`: @callee takes 1 arguments, found 2");
}

#[test]
fn macros() {
    insta::assert_snapshot!(refused("f32[2, 3]; f32[4]", "norm %a, %b {eps = 0.0}"), @"`norm`: the weight's shape is not the last dimension of x");
    insta::assert_snapshot!(refused("f32[T, 1, 4]; f32[T, 4]; f32[T, 4]", "rope %a, %b, %c"), @"`rope`: angles are not f32[T, head_dim / 2]");
    insta::assert_snapshot!(refused("f32[2]", "map %a {expr = $1}"), @"`map`: names operand $1 of 1");
    insta::assert_snapshot!(refused("f32[2]", "map %a {expr = #0}"), @"`map`: only `gemm` has accumulators, `rope` and `head_norm`");
    insta::assert_snapshot!(refused("bool[2]", "map %a {expr = $0}"), @"`map`: does not take bool");
    let gemm = |rest: &str| {
        let types = "f32[T, 4]; f32[6, 4]; f32[2, 4]; f32[3]; f32[C, 1, 4]; i32[T]";
        refused(types, &format!("gemm %a, %b, %c, %d, %e, %f {{weights = 2, {rest}}}"))
    };
    insta::assert_snapshot!(gemm("prologue = rms_norm(0.0), outputs = [#0]"), @"`gemm`: the norm weight is not [K]");
    insta::assert_snapshot!(gemm("outputs = [(add #0 #1)]"), @"`gemm`: accumulators of one output differ in width");
    insta::assert_snapshot!(gemm("outputs = [#2]"), @"`gemm`: names weight #2 of 2");
    insta::assert_snapshot!(gemm("outputs = [1.0]"), @"`gemm`: an output uses no accumulator");
    insta::assert_snapshot!(gemm("outputs = [(add #0 $0)]"), @"`gemm`: extra operand $0 is neither [M, N] nor [N]");
    insta::assert_snapshot!(gemm("outputs = [(add #0 $9)]"), @"`gemm`: names extra operand $9 of 3");
    insta::assert_snapshot!(gemm("outputs = [(rope #0 $0 $0 2)]"), @"`gemm`: `rope` wants angles [M, head_dim / 2]");
    insta::assert_snapshot!(gemm("outputs = [(head_norm #0 $0 0.0 3)]"), @"`gemm`: 6 columns are not whole heads of 3");
    insta::assert_snapshot!(gemm("outputs = [#0 -> append($1, $2)]"), @"`gemm`: the cache's rows are not as wide as the output");
    insta::assert_snapshot!(gemm("outputs = [#0 -> append($7, $2)]"), @"`gemm`: names a cache that is not there");
    let attention = |q: &str, attr: &str| {
        let types = format!("{q}; f16[C, 1, 4]; f16[C, 1, 4]; i32[T]");
        refused(&types, &format!("attention %a, %b, %c, %d {{{attr}, scale = 1.0}}"))
    };
    insta::assert_snapshot!(attention("f32[T, 4]", "heads = 2, kv_heads = 1, head_dim = 4"), @"`attention`: q is not [T, heads · head_dim]");
    insta::assert_snapshot!(attention("f32[T, 4]", "heads = 1, kv_heads = 2, head_dim = 4"), @"`attention`: query heads are not a multiple of KV heads");
    insta::assert_snapshot!(attention("f32[T, 4]", "heads = 2, kv_heads = 1, head_dim = 2"), @"`attention`: caches are not [C, kv_heads, head_dim]");
    insta::assert_snapshot!(attention("f32[T, 0]", "heads = 0, kv_heads = 1, head_dim = 4"), @"`attention`: heads, head_dim and window cannot be 0");
    insta::assert_snapshot!(attention("f32[2, 4]", "heads = 1, kv_heads = 1, head_dim = 4"), @"`attention`: positions are not one i32 per query row");
}

#[test]
fn loops() {
    insta::assert_snapshot!(refused("f32[2, 9]; i32[16]; i32[1]; i32[T]", "sample %a, %b, %c, %d"), @"`sample`: logits are not f32[1, V]");
    insta::assert_snapshot!(refused("f32[1, 9]; i32[8]; i32[1]; i32[T]", "sample %a, %b, %c, %d"), @"`sample`: sampling parameters are not i32[16]");
    insta::assert_snapshot!(refused("f32[1, 9]; i32[16]; i32[2]; i32[T]", "sample %a, %b, %c, %d"), @"`sample`: the counter is not i32[1]");
    insta::assert_snapshot!(refused("f32[1, 9]; i32[16]; i32[1]; f32[T]", "sample %a, %b, %c, %d"), @"`sample`: the history is not i32[H]");
    let step = |params: &str, results: &str, returned: &str| {
        let text = format!(
            "module @m {{ symbol T in 1..=4 symbol C in 1..=8
               func @step({params}) -> ({results}) {{ return {returned} }}
               func @f(%p: i32[T], %s: i32[16]) -> () {{
                 decode_loop %p, %s {{step = @step, stop_tokens = []}} : () return }} }}"
        );
        let error = parse(&text).expect_err("the rule accepts it").to_string();
        error.split_once(": ").unwrap().1.to_string()
    };
    let all = "%t: i32[T], %p: i32[T], %l: i32[1], %c: f32[1, 2]";
    insta::assert_snapshot!(step("%t: i32[T]", "i32[T]", "%t"), @"`decode_loop`: the step is not (tokens, positions, last, caches…) → (logits, caches…)");
    insta::assert_snapshot!(step(&all.replacen("i32[T]", "f32[T]", 1), "f32[1, 2], f32[1, 2]", "%c, %c"), @"`decode_loop`: tokens and positions of the step are not i32[T]");
    insta::assert_snapshot!(step(&all.replace("i32[1]", "i32[2]"), "f32[1, 2], f32[1, 2]", "%c, %c"), @"`decode_loop`: the step's third operand is not i32[1]");
    insta::assert_snapshot!(step(all, "i32[T], f32[1, 2]", "%t, %c"), @"`decode_loop`: the step's first result is not f32[1, V]");
    insta::assert_snapshot!(step(all, "f32[1, 2], i32[T]", "%c, %t"), @"`decode_loop`: caches change their type");
    insta::assert_snapshot!(step(&format!("{all}, %i: i32[2]"), "f32[1, 2], f32[1, 2], i32[2]", "%c, %c, %i"), @"`decode_loop`: caches are not plain reals");
}
