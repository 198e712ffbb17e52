// The smallest kernel that does something: for the tool, and for objects that are broken on
// purpose.

#include "device.h"

// Any grid; each work-item strides over the array.
KERNEL scale(float *x, float factor, u32 count) {
  for (u32 i = blockIdx_x * blockDim_x + threadIdx_x; i < count; i += gridSize_x) x[i] *= factor;
}
