//! What kernels with roles are made of: barriers in the local data share that count arrivals and
//! bytes, copies that hardware makes, products by four waves together.
//!
//! Section names are those of NVIDIA's "Parallel Thread Execution ISA".

use super::Builder;
use crate::mlir::{Elem, Value};
use crate::target::MatrixType;

/// Lanes that multiply together.
pub const WARPGROUP: u32 = 128;
/// Rows of a product.
pub const PRODUCT_ROWS: u32 = 64;
/// Elements along K of a product.
pub const PRODUCT_DEPTH: u32 = 16;
/// Bytes of a barrier, and its alignment.
pub const MBARRIER_BYTES: u32 = 8;
/// Of four lanes of a group of eight columns the sums that each has of both of its rows.
pub const COLUMN_GROUP: u32 = 8;

/// Where a factor lies in the local data share, K-major and without swizzle ("Matrix Descriptor
/// Format", "Strides"): in *core matrices* of 8 rows of 16 bytes, 128 contiguous bytes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strides {
    /// Bytes from a core matrix to the next along K: the leading dimension byte offset.
    pub leading: u32,
    /// Bytes from 8 rows to the next: the stride dimension byte offset.
    pub stride: u32,
}

impl Strides {
    /// The bits of a descriptor but for the address: offsets without their four low bits at bits 16
    /// and 32, no base offset, swizzling mode 0.
    pub fn bits(self) -> i64 {
        let encode = |offset: u32| i64::from((offset & 0x3_ffff) >> 4);
        encode(self.leading) << 16 | encode(self.stride) << 32
    }
}

/// The first factor of a product.
#[derive(Clone, Copy, Debug)]
pub enum Rows {
    /// A descriptor, `i64`.
    Shared(Value),
    /// Four words of a lane: with n and g as in [`crate::target::Warpgroups`], elements 2·g and
    /// 2·g + 1 of rows n and n + 8, then those that lie 8 further along K.
    Registers([Value; 4]),
}

/// D += A·Bᵀ for 16 elements along K.
#[derive(Clone, Copy, Debug)]
pub struct Multiply {
    /// Which sums it adds to.
    pub sums: usize,
    /// A, 64 rows.
    pub a: Rows,
    /// Descriptor of B, as many rows as D has columns.
    pub b: Value,
}

/// The operations of a platform, by the names and contracts of the builder's methods that call them.
pub(in crate::mlir) trait Warpgroup: std::fmt::Debug {
    fn mbarrier_init(&self, k: &mut Builder, at: Value, count: u32);
    fn mbarriers_ready(&self, k: &mut Builder);
    fn mbarrier_arrive(&self, k: &mut Builder, at: Value);
    fn mbarrier_expect(&self, k: &mut Builder, at: Value, bytes: Value);
    fn mbarrier_wait(&self, k: &mut Builder, at: Value, parity: Value);
    fn copy_bulk(&self, k: &mut Builder, to: Value, from: Value, bytes: Value, at: Value);
    fn registers(&self, k: &mut Builder, count: u32, more: bool);
    fn multiply(
        &self,
        k: &mut Builder,
        factors: MatrixType,
        products: &[Multiply],
        sums: &[Vec<Value>],
    ) -> Vec<Vec<Value>>;
}

/// Work-items that meet at barriers where not all do.
#[derive(Clone, Copy, Debug)]
pub(in crate::mlir) struct Workers {
    /// The first so many of the workgroup, whole waves.
    pub count: u32,
    /// A barrier in the local data share, for hardware that has none for part of a workgroup: in
    /// tests.
    #[cfg_attr(not(test), expect(dead_code))]
    pub at: Value,
}

impl Builder {
    fn warpgroup(&mut self) -> &'static dyn Warpgroup {
        self.gpu().hardware.warpgroup()
    }

    /// From here on barriers are for the first `count` work-items. `at` is a barrier in the local
    /// data share ([`Builder::mbarrier_init`] with the number of their waves) that nothing else uses.
    pub fn only_workers(&mut self, count: u32, at: Value) {
        self.gpu().workers = Some(Workers { count, at });
    }

    /// The launch asks for the kernel's local data share, which the code alone does not: there may be
    /// more of it.
    pub fn ask_for_shared(&mut self) {
        self.gpu().dynamic_shared = true;
    }

    /// Sets up a barrier at `at` in the local data share for `count` arrivals in each phase. One
    /// work-item does it.
    pub fn mbarrier_init(&mut self, at: Value, count: u32) {
        self.warpgroup().mbarrier_init(self, at, count);
    }

    /// Barriers that this work-item has set up are known to copies, and to all behind a barrier of
    /// the workgroup.
    pub fn mbarriers_ready(&mut self) {
        self.warpgroup().mbarriers_ready(self);
    }

    /// One arrival, by one lane; what it did before is seen by who waits for the phase.
    pub fn mbarrier_arrive(&mut self, at: Value) {
        self.warpgroup().mbarrier_arrive(self, at);
    }

    /// One arrival, by one lane, and so many bytes (an `i32`) that copies have to bring before the
    /// phase ends.
    pub fn mbarrier_expect(&mut self, at: Value, bytes: Value) {
        self.warpgroup().mbarrier_expect(self, at, bytes);
    }

    /// Waits until the phase of parity `parity` (an `i32`, the same in all lanes) has ended; the
    /// phase before the first one has parity 1.
    pub fn mbarrier_wait(&mut self, at: Value, parity: Value) {
        self.warpgroup().mbarrier_wait(self, at, parity);
    }

    /// Has hardware copy `bytes` bytes (an `i32`, a multiple of 16) of memory, which must not change
    /// meanwhile, to the local data share, and count them at a barrier; by one lane. Addresses are
    /// multiples of 16.
    pub fn copy_bulk(&mut self, to: Value, from: Value, bytes: Value, at: Value) {
        self.warpgroup().copy_bulk(self, to, from, bytes, at);
    }

    /// From here on the work-items of this warpgroup have `count` registers, which are more or fewer
    /// than before: all of them get here.
    pub fn registers(&mut self, count: u32, more: bool) {
        self.warpgroup().registers(self, count, more);
    }

    /// Adds products to sums and waits for them: all lanes of a warpgroup get here together. A set of
    /// sums are a lane's of D, by groups of eight columns ([`COLUMN_GROUP`]): of its first row two
    /// columns, then of its second one.
    pub fn multiply(
        &mut self,
        factors: MatrixType,
        products: &[Multiply],
        sums: &[Vec<Value>],
    ) -> Vec<Vec<Value>> {
        self.warpgroup().multiply(self, factors, products, sums)
    }

    /// The descriptor of a factor at an address of the local data share.
    pub fn descriptor(&mut self, at: Value, strides: Strides) -> Value {
        let address = self.shared_address(at);
        let (mask, four) = (self.i32(0x3_ffff), self.i32(4));
        let address = self.and(address, mask);
        let address = self.shr_u(address, four);
        let address = self.zext(address, Elem::I64);
        let bits = self.i64(strides.bits());
        self.or(address, bits)
    }

    /// The same descriptor, `bytes` further.
    pub fn descriptor_at(&mut self, descriptor: Value, bytes: u32) -> Value {
        if bytes == 0 { descriptor } else { self.add_const(descriptor, i64::from(bytes >> 4)) }
    }

    /// An address of the local data share as an `i32`.
    pub(in crate::mlir) fn shared_address(&mut self, at: Value) -> Value {
        let from = at.ty;
        self.emit(Elem::I32.into(), |t| format!("llvm.ptrtoint {at} : {from} to {t}"))
    }
}
