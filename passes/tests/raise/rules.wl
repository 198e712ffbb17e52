// Every rewrite rule by itself: @rule.start becomes @rule.goal when that rule alone is applied.
module @rules {
  symbol T in 1..=6
  symbol S in 1..=9
  symbol C in 1..=9

  func @add_zero.start(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "c" = constant {value = 0.0, ty = f32[]} : f32[]
    %2 "y" = add %0, %1 : f32[T, 6]
    return %2
  }
  func @add_zero.goal(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    return %0
  }

  func @zero_add.start(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "c" = constant {value = 0.0, ty = f32[]} : f32[]
    %2 "y" = add %1, %0 : f32[T, 6]
    return %2
  }
  func @zero_add.goal(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    return %0
  }

  func @sub_zero.start(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "c" = constant {value = 0.0, ty = f32[]} : f32[]
    %2 "y" = sub %0, %1 : f32[T, 6]
    return %2
  }
  func @sub_zero.goal(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    return %0
  }

  func @zero_sub.start(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "c" = constant {value = 0.0, ty = f32[]} : f32[]
    %2 "y" = sub %1, %0 : f32[T, 6]
    return %2
  }
  func @zero_sub.goal(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "y" = neg %0 : f32[T, 6]
    return %1
  }

  func @mul_one.start(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "c" = constant {value = 1.0, ty = f32[]} : f32[]
    %2 "y" = mul %0, %1 : f32[T, 6]
    return %2
  }
  func @mul_one.goal(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    return %0
  }

  func @one_mul.start(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "c" = constant {value = 1.0, ty = f32[]} : f32[]
    %2 "y" = mul %1, %0 : f32[T, 6]
    return %2
  }
  func @one_mul.goal(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    return %0
  }

  func @mul_minus_one.start(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "c" = constant {value = -1.0, ty = f32[]} : f32[]
    %2 "y" = mul %0, %1 : f32[T, 6]
    return %2
  }
  func @mul_minus_one.goal(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "y" = neg %0 : f32[T, 6]
    return %1
  }

  func @minus_one_mul.start(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "c" = constant {value = -1.0, ty = f32[]} : f32[]
    %2 "y" = mul %1, %0 : f32[T, 6]
    return %2
  }
  func @minus_one_mul.goal(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "y" = neg %0 : f32[T, 6]
    return %1
  }

  func @div_one.start(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "c" = constant {value = 1.0, ty = f32[]} : f32[]
    %2 "y" = div %0, %1 : f32[T, 6]
    return %2
  }
  func @div_one.goal(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    return %0
  }

  func @neg_neg.start(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "y" = neg %0 : f32[T, 6]
    %2 "z" = neg %1 : f32[T, 6]
    return %2
  }
  func @neg_neg.goal(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    return %0
  }

  func @add_neg.start(%0 "x": f32[T, 6], %1 "y": f32[T, 6]) -> (f32[T, 6]) {
    %2 "n" = neg %1 : f32[T, 6]
    %3 "z" = add %0, %2 : f32[T, 6]
    return %3
  }
  func @add_neg.goal(%0 "x": f32[T, 6], %1 "y": f32[T, 6]) -> (f32[T, 6]) {
    %2 "z" = sub %0, %1 : f32[T, 6]
    return %2
  }

  func @neg_add.start(%0 "x": f32[T, 6], %1 "y": f32[T, 6]) -> (f32[T, 6]) {
    %2 "n" = neg %0 : f32[T, 6]
    %3 "z" = add %2, %1 : f32[T, 6]
    return %3
  }
  func @neg_add.goal(%0 "x": f32[T, 6], %1 "y": f32[T, 6]) -> (f32[T, 6]) {
    %2 "z" = sub %1, %0 : f32[T, 6]
    return %2
  }

  func @sub_neg.start(%0 "x": f32[T, 6], %1 "y": f32[T, 6]) -> (f32[T, 6]) {
    %2 "n" = neg %1 : f32[T, 6]
    %3 "z" = sub %0, %2 : f32[T, 6]
    return %3
  }
  func @sub_neg.goal(%0 "x": f32[T, 6], %1 "y": f32[T, 6]) -> (f32[T, 6]) {
    %2 "z" = add %0, %1 : f32[T, 6]
    return %2
  }

  func @neg_mul.start(%0 "x": f32[T, 6], %1 "y": f32[T, 6]) -> (f32[T, 6]) {
    %2 "n" = neg %0 : f32[T, 6]
    %3 "z" = mul %2, %1 : f32[T, 6]
    return %3
  }
  func @neg_mul.goal(%0 "x": f32[T, 6], %1 "y": f32[T, 6]) -> (f32[T, 6]) {
    %2 "z" = mul %0, %1 : f32[T, 6]
    %3 "n" = neg %2 : f32[T, 6]
    return %3
  }

  func @mul_neg.start(%0 "x": f32[T, 6], %1 "y": f32[T, 6]) -> (f32[T, 6]) {
    %2 "n" = neg %1 : f32[T, 6]
    %3 "z" = mul %0, %2 : f32[T, 6]
    return %3
  }
  func @mul_neg.goal(%0 "x": f32[T, 6], %1 "y": f32[T, 6]) -> (f32[T, 6]) {
    %2 "z" = mul %0, %1 : f32[T, 6]
    %3 "n" = neg %2 : f32[T, 6]
    return %3
  }

  func @neg_div.start(%0 "x": f32[T, 6], %1 "y": f32[T, 6]) -> (f32[T, 6]) {
    %2 "n" = neg %0 : f32[T, 6]
    %3 "z" = div %2, %1 : f32[T, 6]
    return %3
  }
  func @neg_div.goal(%0 "x": f32[T, 6], %1 "y": f32[T, 6]) -> (f32[T, 6]) {
    %2 "z" = div %0, %1 : f32[T, 6]
    %3 "n" = neg %2 : f32[T, 6]
    return %3
  }

  func @abs_neg.start(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "n" = neg %0 : f32[T, 6]
    %2 "z" = abs %1 : f32[T, 6]
    return %2
  }
  func @abs_neg.goal(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "z" = abs %0 : f32[T, 6]
    return %1
  }

  func @max_same.start(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "y" = max %0, %0 : f32[T, 6]
    return %1
  }
  func @max_same.goal(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    return %0
  }

  func @min_same.start(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "y" = min %0, %0 : f32[T, 6]
    return %1
  }
  func @min_same.goal(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    return %0
  }

  func @select_same.start(%0 "x": f32[T, 6], %1 "y": f32[T, 6]) -> (f32[T, 6]) {
    %2 "p" = lt %0, %1 : bool[T, 6]
    %3 "z" = select %2, %0, %0 : f32[T, 6]
    return %3
  }
  func @select_same.goal(%0 "x": f32[T, 6], %1 "y": f32[T, 6]) -> (f32[T, 6]) {
    return %0
  }

  func @dequantize_f32.start(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "y" = dequantize %0 : f32[T, 6]
    return %1
  }
  func @dequantize_f32.goal(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    return %0
  }

  func @div_power_of_two.start(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "c" = constant {value = 8.0, ty = f32[]} : f32[]
    %2 "y" = div %0, %1 : f32[T, 6]
    return %2
  }
  func @div_power_of_two.goal(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "c" = constant {value = 0.125, ty = f32[]} : f32[]
    %2 "y" = mul %0, %1 : f32[T, 6]
    return %2
  }

  func @cast_same.start(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "y" = cast %0 {dtype = f32} : f32[T, 6]
    return %1
  }
  func @cast_same.goal(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    return %0
  }

  func @cast_is_dequantize.start(%0 "x": bf16[T, 6]) -> (f32[T, 6]) {
    %1 "y" = cast %0 {dtype = f32} : f32[T, 6]
    return %1
  }
  func @cast_is_dequantize.goal(%0 "x": bf16[T, 6]) -> (f32[T, 6]) {
    %1 "y" = dequantize %0 : f32[T, 6]
    return %1
  }

  func @shrink_splat.start(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "c" = constant {value = 3.0, ty = f32[T, 6]} : f32[T, 6]
    %2 "y" = mul %0, %1 : f32[T, 6]
    return %2
  }
  func @shrink_splat.goal(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "c" = constant {value = 3.0, ty = f32[]} : f32[]
    %2 "y" = mul %0, %1 : f32[T, 6]
    return %2
  }

  func @outer_product.start(%0 "x": f32[T, 1], %1 "y": f32[1, 6]) -> (f32[T, 6]) {
    %2 "z" = matmul %0, %1 : f32[T, 6]
    return %2
  }
  func @outer_product.goal(%0 "x": f32[T, 1], %1 "y": f32[1, 6]) -> (f32[T, 6]) {
    %2 "z" = mul %0, %1 : f32[T, 6]
    return %2
  }

  func @view_is_reshape.start(%0 "x": f32[T, 2, 3]) -> (f32[T, 6]) {
    %1 "t" = transpose %0 {perm = [1, 0, 2]} : f32[2, T, 3]
    %2 "b" = reshape %1 {shape = [1, 2, T, 3]} : f32[1, 2, T, 3]
    %3 "u" = transpose %2 {perm = [0, 2, 1, 3]} : f32[1, T, 2, 3]
    %4 "y" = reshape %3 {shape = [T, 6]} : f32[T, 6]
    return %4
  }
  func @view_is_reshape.goal(%0 "x": f32[T, 2, 3]) -> (f32[T, 6]) {
    %1 "y" = reshape %0 {shape = [T, 6]} : f32[T, 6]
    return %1
  }

  func @view_is_transpose.start(%0 "x": f32[T, 6]) -> (f32[2, 3, T]) {
    %1 "h" = reshape %0 {shape = [T, 2, 3]} : f32[T, 2, 3]
    %2 "t" = transpose %1 {perm = [1, 0, 2]} : f32[2, T, 3]
    %3 "u" = transpose %2 {perm = [0, 2, 1]} : f32[2, 3, T]
    return %3
  }
  func @view_is_transpose.goal(%0 "x": f32[T, 6]) -> (f32[2, 3, T]) {
    %1 "w" = reshape %0 {shape = [T, 2, 3]} : f32[T, 2, 3]
    %2 "t" = transpose %1 {perm = [1, 2, 0]} : f32[2, 3, T]
    return %2
  }

  func @transpose_of_transpose.start(%0 "x": f32[T, 2, 3]) -> (f32[3, T, 2]) {
    %1 "t" = transpose %0 {perm = [1, 2, 0]} : f32[2, 3, T]
    %2 "u" = transpose %1 {perm = [1, 2, 0]} : f32[3, T, 2]
    return %2
  }
  func @transpose_of_transpose.goal(%0 "x": f32[T, 2, 3]) -> (f32[3, T, 2]) {
    %1 "u" = transpose %0 {perm = [2, 0, 1]} : f32[3, T, 2]
    return %1
  }

  func @broadcast_of_broadcast.start(%0 "x": f32[1, 3]) -> (f32[T, 2, 3]) {
    %1 "b" = broadcast %0 {shape = [2, 3]} : f32[2, 3]
    %2 "c" = broadcast %1 {shape = [T, 2, 3]} : f32[T, 2, 3]
    return %2
  }
  func @broadcast_of_broadcast.goal(%0 "x": f32[1, 3]) -> (f32[T, 2, 3]) {
    %1 "c" = broadcast %0 {shape = [T, 2, 3]} : f32[T, 2, 3]
    return %1
  }

  func @slice_of_slice.start(%0 "x": f32[T, 6]) -> (f32[T, 2]) {
    %1 "a" = slice %0 {axis = 1, start = 1, len = 4} : f32[T, 4]
    %2 "b" = slice %1 {axis = 1, start = 1, len = 2} : f32[T, 2]
    return %2
  }
  func @slice_of_slice.goal(%0 "x": f32[T, 6]) -> (f32[T, 2]) {
    %1 "b" = slice %0 {axis = 1, start = 2, len = 2} : f32[T, 2]
    return %1
  }

  func @slice_of_concat.start(%0 "x": f32[T, 6], %1 "y": f32[T, 6]) -> (f32[T, 2]) {
    %2 "j" = concat %0, %1 {axis = 1} : f32[T, 12]
    %3 "b" = slice %2 {axis = 1, start = 7, len = 2} : f32[T, 2]
    return %3
  }
  func @slice_of_concat.goal(%0 "x": f32[T, 6], %1 "y": f32[T, 6]) -> (f32[T, 2]) {
    %2 "b" = slice %1 {axis = 1, start = 1, len = 2} : f32[T, 2]
    return %2
  }

  func @concat_of_one.start(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "y" = concat %0 {axis = 1} : f32[T, 6]
    return %1
  }
  func @concat_of_one.goal(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    return %0
  }

  func @concat_of_slices.start(%0 "x": f32[T, 6]) -> (f32[T, 5]) {
    %1 "a" = slice %0 {axis = 1, start = 1, len = 2} : f32[T, 2]
    %2 "b" = slice %0 {axis = 1, start = 3, len = 3} : f32[T, 3]
    %3 "y" = concat %1, %2 {axis = 1} : f32[T, 5]
    return %3
  }
  func @concat_of_slices.goal(%0 "x": f32[T, 6]) -> (f32[T, 5]) {
    %1 "y" = slice %0 {axis = 1, start = 1, len = 5} : f32[T, 5]
    return %1
  }

  func @drop_broadcast.start(%0 "x": f32[T, 6], %1 "y": f32[T, 1]) -> (f32[T, 6]) {
    %2 "b" = broadcast %1 {shape = [T, 6]} : f32[T, 6]
    %3 "z" = add %0, %2 : f32[T, 6]
    return %3
  }
  func @drop_broadcast.goal(%0 "x": f32[T, 6], %1 "y": f32[T, 1]) -> (f32[T, 6]) {
    %2 "z" = add %0, %1 : f32[T, 6]
    return %2
  }

  func @drop_unit_reshape.start(%0 "x": f32[T, 6], %1 "y": f32[6]) -> (f32[T, 6]) {
    %2 "b" = reshape %1 {shape = [1, 6]} : f32[1, 6]
    %3 "z" = add %2, %0 : f32[T, 6]
    return %3
  }
  func @drop_unit_reshape.goal(%0 "x": f32[T, 6], %1 "y": f32[6]) -> (f32[T, 6]) {
    %2 "z" = add %1, %0 : f32[T, 6]
    return %2
  }

  func @unary_of_repeat.start(%0 "x": f32[T, 6]) -> (f32[T, 12]) {
    %1 "j" = concat %0, %0 {axis = 1} : f32[T, 12]
    %2 "y" = cos %1 : f32[T, 12]
    return %2
  }
  func @unary_of_repeat.goal(%0 "x": f32[T, 6]) -> (f32[T, 12]) {
    %1 "c" = cos %0 : f32[T, 6]
    %2 "y" = concat %1, %1 {axis = 1} : f32[T, 12]
    return %2
  }

  func @scale_of_repeat.start(%0 "x": f32[T, 6]) -> (f32[T, 12]) {
    %1 "c" = constant {value = 3.0, ty = f32[]} : f32[]
    %2 "j" = concat %0, %0 {axis = 1} : f32[T, 12]
    %3 "y" = mul %1, %2 : f32[T, 12]
    return %3
  }
  func @scale_of_repeat.goal(%0 "x": f32[T, 6]) -> (f32[T, 12]) {
    %1 "c" = constant {value = 3.0, ty = f32[]} : f32[]
    %2 "m" = mul %1, %0 : f32[T, 6]
    %3 "y" = concat %2, %2 {axis = 1} : f32[T, 12]
    return %3
  }

  func @reciprocal_of_sqrt.start(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "q" = mul %0, %0 : f32[T, 6]
    %2 "c" = constant {value = 1.0, ty = f32[]} : f32[]
    %3 "s" = sqrt %1 : f32[T, 6]
    %4 "y" = div %2, %3 : f32[T, 6]
    return %4
  }
  func @reciprocal_of_sqrt.goal(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "q" = mul %0, %0 : f32[T, 6]
    %2 "y" = rsqrt %1 : f32[T, 6]
    return %2
  }

  func @mul_reciprocal.start(%0 "x": f32[T, 6], %1 "y": f32[T, 6]) -> (f32[T, 6]) {
    %2 "c" = constant {value = 1.0, ty = f32[]} : f32[]
    %3 "r" = div %2, %1 : f32[T, 6]
    %4 "z" = mul %0, %3 : f32[T, 6]
    return %4
  }
  func @mul_reciprocal.goal(%0 "x": f32[T, 6], %1 "y": f32[T, 6]) -> (f32[T, 6]) {
    %2 "z" = div %0, %1 : f32[T, 6]
    return %2
  }

  func @reciprocal_mul.start(%0 "x": f32[T, 6], %1 "y": f32[T, 6]) -> (f32[T, 6]) {
    %2 "c" = constant {value = 1.0, ty = f32[]} : f32[]
    %3 "r" = div %2, %1 : f32[T, 6]
    %4 "z" = mul %3, %0 : f32[T, 6]
    return %4
  }
  func @reciprocal_mul.goal(%0 "x": f32[T, 6], %1 "y": f32[T, 6]) -> (f32[T, 6]) {
    %2 "z" = div %0, %1 : f32[T, 6]
    return %2
  }

  func @div_by_splat.start(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "c" = constant {value = 3.0, ty = f32[]} : f32[]
    %2 "y" = div %0, %1 : f32[T, 6]
    return %2
  }
  func @div_by_splat.goal(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "c" = constant {value = 0.33333334, ty = f32[]} : f32[]
    %2 "y" = mul %0, %1 : f32[T, 6]
    return %2
  }

  func @mul_by_two_splats.start(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "a" = constant {value = 3.0, ty = f32[]} : f32[]
    %2 "b" = constant {value = 0.1, ty = f32[]} : f32[]
    %3 "y" = mul %0, %1 : f32[T, 6]
    %4 "z" = mul %2, %3 : f32[T, 6]
    return %4
  }
  func @mul_by_two_splats.goal(%0 "x": f32[T, 6]) -> (f32[T, 6]) {
    %1 "c" = constant {value = 0.3, ty = f32[]} : f32[]
    %2 "y" = mul %0, %1 : f32[T, 6]
    return %2
  }

  func @scale_out_of_shape_op.start(%0 "x": f32[T, 2, 3]) -> (f32[2, T, 3]) {
    %1 "c" = constant {value = 0.3, ty = f32[]} : f32[]
    %2 "y" = mul %1, %0 : f32[T, 2, 3]
    %3 "z" = transpose %2 {perm = [1, 0, 2]} : f32[2, T, 3]
    return %3
  }
  func @scale_out_of_shape_op.goal(%0 "x": f32[T, 2, 3]) -> (f32[2, T, 3]) {
    %1 "c" = constant {value = 0.3, ty = f32[]} : f32[]
    %2 "y" = transpose %0 {perm = [1, 0, 2]} : f32[2, T, 3]
    %3 "z" = mul %2, %1 : f32[2, T, 3]
    return %3
  }

  func @scale_out_of_matmul.start(%0 "x": f32[T, 6], %1 "y": f32[6, 4]) -> (f32[T, 4]) {
    %2 "c" = constant {value = 0.3, ty = f32[]} : f32[]
    %3 "s" = mul %1, %2 : f32[6, 4]
    %4 "z" = matmul %0, %3 : f32[T, 4]
    return %4
  }
  func @scale_out_of_matmul.goal(%0 "x": f32[T, 6], %1 "y": f32[6, 4]) -> (f32[T, 4]) {
    %2 "c" = constant {value = 0.3, ty = f32[]} : f32[]
    %3 "y2" = matmul %0, %1 : f32[T, 4]
    %4 "z" = mul %3, %2 : f32[T, 4]
    return %4
  }

  func @division_into_matmul.start(%0 "x": f32[T, 6], %1 "y": f32[6, 4], %2 "s": f32[T, 1]) -> (f32[T, 4]) {
    %3 "p" = matmul %0, %1 : f32[T, 4]
    %4 "z" = div %3, %2 : f32[T, 4]
    return %4
  }
  func @division_into_matmul.goal(%0 "x": f32[T, 6], %1 "y": f32[6, 4], %2 "s": f32[T, 1]) -> (f32[T, 4]) {
    %3 "d" = div %0, %2 : f32[T, 6]
    %4 "z" = matmul %3, %1 : f32[T, 4]
    return %4
  }

  func @norm_of_transpose.start(%0 "x": f32[T, 2, 3], %1 "w": f32[3]) -> (f32[2, T, 3]) {
    %2 "t" = transpose %0 {perm = [1, 0, 2]} : f32[2, T, 3]
    %3 "y" = norm %2, %1 {eps = 1e-5} : f32[2, T, 3]
    return %3
  }
  func @norm_of_transpose.goal(%0 "x": f32[T, 2, 3], %1 "w": f32[3]) -> (f32[2, T, 3]) {
    %2 "n" = norm %0, %1 {eps = 1e-5} : f32[T, 2, 3]
    %3 "y" = transpose %2 {perm = [1, 0, 2]} : f32[2, T, 3]
    return %3
  }

  func @gather_dequantized.start(%0 "t": q8_0[4, 32], %1 "i": i32[T]) -> (f32[T, 32]) {
    %2 "d" = dequantize %0 : f32[4, 32]
    %3 "y" = gather %2, %1 : f32[T, 32]
    return %3
  }
  func @gather_dequantized.goal(%0 "t": q8_0[4, 32], %1 "i": i32[T]) -> (f32[T, 32]) {
    %2 "y" = embed %0, %1 : f32[T, 32]
    return %2
  }

  func @dequantize_gathered.start(%0 "t": q8_0[4, 32], %1 "i": i32[T]) -> (f32[T, 32]) {
    %2 "g" = gather %0, %1 : q8_0[T, 32]
    %3 "y" = dequantize %2 : f32[T, 32]
    return %3
  }
  func @dequantize_gathered.goal(%0 "t": q8_0[4, 32], %1 "i": i32[T]) -> (f32[T, 32]) {
    %2 "y" = embed %0, %1 : f32[T, 32]
    return %2
  }

  func @gather_f32.start(%0 "t": f32[4, 32], %1 "i": i32[T]) -> (f32[T, 32]) {
    %2 "y" = gather %0, %1 : f32[T, 32]
    return %2
  }
  func @gather_f32.goal(%0 "t": f32[4, 32], %1 "i": i32[T]) -> (f32[T, 32]) {
    %2 "y" = embed %0, %1 : f32[T, 32]
    return %2
  }

  func @matmul_by_weight.start(%0 "x": f32[T, 6], %1 "w": bf16[4, 6]) -> (f32[T, 4]) {
    %2 "d" = dequantize %1 : f32[4, 6]
    %3 "t" = transpose %2 {perm = [1, 0]} : f32[6, 4]
    %4 "y" = matmul %0, %3 : f32[T, 4]
    return %4
  }
  func @matmul_by_weight.goal(%0 "x": f32[T, 6], %1 "w": bf16[4, 6]) -> (f32[T, 4]) {
    %2 "y" = gemm %0, %1 {weights = 1, outputs = [#0]} : f32[T, 4]
    return %2
  }

  func @weight_by_matmul.start(%0 "x": f32[T, 6], %1 "w": bf16[4, 6]) -> (f32[4, T]) {
    %2 "d" = dequantize %1 : f32[4, 6]
    %3 "t" = transpose %0 {perm = [1, 0]} : f32[6, T]
    %4 "y" = matmul %2, %3 : f32[4, T]
    return %4
  }
  func @weight_by_matmul.goal(%0 "x": f32[T, 6], %1 "w": bf16[4, 6]) -> (f32[4, T]) {
    %2 "v" = transpose %0 {perm = [1, 0]} : f32[6, T]
    %3 "u" = transpose %2 {perm = [1, 0]} : f32[T, 6]
    %4 "y" = gemm %3, %1 {weights = 1, outputs = [#0]} : f32[T, 4]
    %5 "z" = transpose %4 {perm = [1, 0]} : f32[4, T]
    return %5
  }

  func @raise_norm.start(%0 "x": f32[T, 6], %1 "w": f32[6]) -> (f32[T, 6]) {
    %2 "q" = mul %0, %0 : f32[T, 6]
    %3 "m" = reduce_mean %2 {axis = 1} : f32[T, 1]
    %4 "e" = constant {value = 1e-5, ty = f32[]} : f32[]
    %5 "p" = add %3, %4 : f32[T, 1]
    %6 "r" = rsqrt %5 : f32[T, 1]
    %7 "y" = mul %0, %6 : f32[T, 6]
    %8 "z" = mul %7, %1 : f32[T, 6]
    return %8
  }
  func @raise_norm.goal(%0 "x": f32[T, 6], %1 "w": f32[6]) -> (f32[T, 6]) {
    %2 "z" = norm %0, %1 {eps = 1e-5} : f32[T, 6]
    return %2
  }

  func @raise_rope_full_width.start(%0 "x": f32[T, 2, 4], %1 "c": f32[T, 2], %2 "s": f32[T, 2]) -> (f32[T, 2, 4]) {
    %3 "a" = slice %0 {axis = 2, start = 0, len = 2} : f32[T, 2, 2]
    %4 "b" = slice %0 {axis = 2, start = 2, len = 2} : f32[T, 2, 2]
    %5 "n" = neg %4 : f32[T, 2, 2]
    %6 "h" = concat %5, %3 {axis = 2} : f32[T, 2, 4]
    %7 "c2" = concat %1, %1 {axis = 1} : f32[T, 4]
    %8 "c3" = reshape %7 {shape = [T, 1, 4]} : f32[T, 1, 4]
    %9 "s2" = concat %2, %2 {axis = 1} : f32[T, 4]
    %10 "s3" = reshape %9 {shape = [T, 1, 4]} : f32[T, 1, 4]
    %11 "p" = mul %0, %8 : f32[T, 2, 4]
    %12 "q" = mul %6, %10 : f32[T, 2, 4]
    %13 "y" = add %11, %12 : f32[T, 2, 4]
    return %13
  }
  func @raise_rope_full_width.goal(%0 "x": f32[T, 2, 4], %1 "c": f32[T, 2], %2 "s": f32[T, 2]) -> (f32[T, 2, 4]) {
    %3 "y" = rope %0, %1, %2 : f32[T, 2, 4]
    return %3
  }

  func @raise_rope_halves.start(%0 "x": f32[T, 2, 4], %1 "c": f32[T, 2], %2 "s": f32[T, 2]) -> (f32[T, 2, 4]) {
    %3 "a" = slice %0 {axis = 2, start = 0, len = 2} : f32[T, 2, 2]
    %4 "b" = slice %0 {axis = 2, start = 2, len = 2} : f32[T, 2, 2]
    %5 "c3" = reshape %1 {shape = [T, 1, 2]} : f32[T, 1, 2]
    %6 "s3" = reshape %2 {shape = [T, 1, 2]} : f32[T, 1, 2]
    %7 "ac" = mul %3, %5 : f32[T, 2, 2]
    %8 "bs" = mul %4, %6 : f32[T, 2, 2]
    %9 "low" = sub %7, %8 : f32[T, 2, 2]
    %10 "bc" = mul %4, %5 : f32[T, 2, 2]
    %11 "as" = mul %3, %6 : f32[T, 2, 2]
    %12 "high" = add %10, %11 : f32[T, 2, 2]
    %13 "y" = concat %9, %12 {axis = 2} : f32[T, 2, 4]
    return %13
  }
  func @raise_rope_halves.goal(%0 "x": f32[T, 2, 4], %1 "c": f32[T, 2], %2 "s": f32[T, 2]) -> (f32[T, 2, 4]) {
    %3 "y" = rope %0, %1, %2 : f32[T, 2, 4]
    return %3
  }

  func @raise_attention.start(%0 "q": f32[T, 8], %1 "k": f32[C, 2, 4], %2 "v": f32[C, 2, 4], %3 "positions": i32[T]) -> (f32[2, T, 4]) {
    %4 "h" = reshape %0 {shape = [T, 2, 4]} : f32[T, 2, 4]
    %5 "qt" = transpose %4 {perm = [1, 0, 2]} : f32[2, T, 4]
    %6 "ks" = slice %1 {axis = 0, start = 0, len = S} : f32[S, 2, 4]
    %7 "kt" = transpose %6 {perm = [1, 2, 0]} : f32[2, 4, S]
    %8 "qk" = matmul %5, %7 : f32[2, T, S]
    %9 "sc" = constant {value = 0.5, ty = f32[]} : f32[]
    %10 "z" = mul %8, %9 : f32[2, T, S]
    %11 "p" = reshape %3 {shape = [T, 1]} : i32[T, 1]
    %12 "j" = iota {len = S} : i32[S]
    %13 "see" = le %12, %11 : bool[T, S]
    %14 "low" = constant {value = -1e9, ty = f32[]} : f32[]
    %15 "m" = select %13, %10, %14 : f32[2, T, S]
    %16 "mx" = reduce_max %15 {axis = 2} : f32[2, T, 1]
    %17 "d" = sub %15, %16 : f32[2, T, S]
    %18 "e" = exp %17 : f32[2, T, S]
    %19 "su" = reduce_sum %18 {axis = 2} : f32[2, T, 1]
    %20 "w" = div %18, %19 : f32[2, T, S]
    %21 "vs" = slice %2 {axis = 0, start = 0, len = S} : f32[S, 2, 4]
    %22 "vt" = transpose %21 {perm = [1, 0, 2]} : f32[2, S, 4]
    %23 "o" = matmul %20, %22 : f32[2, T, 4]
    return %23
  }
  func @raise_attention.goal(%0 "q": f32[T, 8], %1 "k": f32[C, 2, 4], %2 "v": f32[C, 2, 4], %3 "positions": i32[T]) -> (f32[2, T, 4]) {
    %4 "h" = reshape %0 {shape = [T, 2, 4]} : f32[T, 2, 4]
    %5 "qt" = transpose %4 {perm = [1, 0, 2]} : f32[2, T, 4]
    %6 "b" = transpose %5 {perm = [1, 0, 2]} : f32[T, 2, 4]
    %7 "q2" = reshape %6 {shape = [T, 8]} : f32[T, 8]
    %8 "a" = attention %7, %1, %2, %3 {heads = 2, kv_heads = 2, head_dim = 4, scale = 0.5} : f32[T, 8]
    %9 "s" = reshape %8 {shape = [T, 2, 4]} : f32[T, 2, 4]
    %10 "t" = transpose %9 {perm = [1, 0, 2]} : f32[2, T, 4]
    return %10
  }
}
