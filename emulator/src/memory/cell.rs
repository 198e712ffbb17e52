//! Single loads and stores of the host, in the two kinds that memory instructions need.
//!
//! Device memory ([`Shared`]) may be accessed by waves on other host threads at the same time, and
//! programs poll flags that others set. Hence every access is an atomic one of the width that the
//! device guarantees (an aligned 8, 16, 32 or 64-bit part is never torn), relaxed: a plain move on
//! x86-64, where in addition all loads are acquiring and all stores releasing. Instructions are
//! closures called through pointers, so that the compiler moves no access out of its instruction;
//! store-then-load order across waves comes from the cache instructions, which are full fences here.
//! Rows of whole vectors go through volatile 16-byte moves, whose aligned parts are not torn either;
//! device memory is no allocation that the compiler knows, so it assumes nothing about them.
//!
//! LDS and private memory ([`Owned`]) belong to the workgroup or wave that is executing, which is
//! held by `&mut`: plain moves.

use std::sync::atomic::{
    AtomicU8, AtomicU16, AtomicU32, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

const _: () = assert!(cfg!(target_endian = "little"), "device memory is little-endian");

/// How bytes are moved. All functions take an address that is valid for the width.
pub(super) trait Cell: Copy {
    unsafe fn load8(address: u64) -> u8;
    unsafe fn load16(address: u64) -> u16;
    unsafe fn load32(address: u64) -> u32;
    unsafe fn load64(address: u64) -> u64;
    unsafe fn store8(address: u64, value: u8);
    unsafe fn store16(address: u64, value: u16);
    unsafe fn store32(address: u64, value: u32);
    unsafe fn store64(address: u64, value: u64);
    /// Replaces a word by what `next` makes of it, and gives the old one.
    unsafe fn update32(address: u64, next: impl Fn(u32) -> u32) -> u32;
    /// Replaces two words by what `next` makes of them, and gives the old ones.
    unsafe fn update64(address: u64, next: impl Fn(u64) -> u64) -> u64;
    /// Four words of one lane, in one move where they are aligned.
    unsafe fn load_quad(address: u64) -> [u32; 4];
    /// Four words of one lane, in one move where they are aligned.
    unsafe fn store_quad(address: u64, words: [u32; 4]);
    /// Many words in a row.
    unsafe fn load_words(address: u64, words: &mut [u32]);
    /// Many words in a row.
    unsafe fn store_words(address: u64, words: &[u32]);

    /// `N` words of one lane.
    #[inline(always)]
    unsafe fn load<const N: usize>(address: u64) -> [u32; N] {
        let mut words = [0; N];
        // SAFETY: the caller's.
        unsafe {
            for pair in 0..N / 2 {
                let both = Self::load64(address + 8 * pair as u64);
                (words[2 * pair], words[2 * pair + 1]) = (both as u32, (both >> 32) as u32);
            }
            if N % 2 == 1 {
                words[N - 1] = Self::load32(address + 4 * (N as u64 - 1));
            }
        }
        words
    }

    /// `N` words of one lane.
    #[inline(always)]
    unsafe fn store<const N: usize>(address: u64, words: [u32; N]) {
        // SAFETY: the caller's.
        unsafe {
            for pair in 0..N / 2 {
                let both = u64::from(words[2 * pair]) | u64::from(words[2 * pair + 1]) << 32;
                Self::store64(address + 8 * pair as u64, both);
            }
            if N % 2 == 1 {
                Self::store32(address + 4 * (N as u64 - 1), words[N - 1]);
            }
        }
    }
}

/// Memory that other threads may access at the same time.
#[derive(Clone, Copy)]
pub(super) struct Shared;

/// Memory that nobody else accesses.
#[derive(Clone, Copy)]
pub(super) struct Owned;

macro_rules! shared {
    ($load:ident, $store:ident, $type:ty, $atomic:ty, $low_load:ident, $low_store:ident) => {
        #[inline(always)]
        unsafe fn $load(address: u64) -> $type {
            const HALF: u64 = size_of::<$type>() as u64 / 2;
            // SAFETY: the address is valid for the width, and aligned where it is used as such.
            unsafe {
                if address.is_multiple_of(2 * HALF) {
                    <$atomic>::from_ptr(address as *mut $type).load(Relaxed)
                } else {
                    let low = <$type>::from(Self::$low_load(address));
                    low | <$type>::from(Self::$low_load(address + HALF)) << (8 * HALF)
                }
            }
        }
        #[inline(always)]
        unsafe fn $store(address: u64, value: $type) {
            const HALF: u64 = size_of::<$type>() as u64 / 2;
            // SAFETY: the address is valid for the width, and aligned where it is used as such.
            unsafe {
                if address.is_multiple_of(2 * HALF) {
                    <$atomic>::from_ptr(address as *mut $type).store(value, Relaxed);
                } else {
                    Self::$low_store(address, value as _);
                    Self::$low_store(address + HALF, (value >> (8 * HALF)) as _);
                }
            }
        }
    };
}

macro_rules! shared_update {
    ($update:ident, $load:ident, $store:ident, $type:ty, $atomic:ty) => {
        #[inline(always)]
        unsafe fn $update(address: u64, next: impl Fn($type) -> $type) -> $type {
            // SAFETY: the address is valid for the width, and aligned where it is used as such.
            unsafe {
                if address.is_multiple_of(size_of::<$type>() as u64) {
                    let cell = <$atomic>::from_ptr(address as *mut $type);
                    let mut old = cell.load(SeqCst);
                    while let Err(found) =
                        cell.compare_exchange_weak(old, next(old), SeqCst, SeqCst)
                    {
                        old = found;
                    }
                    return old;
                }
                // Aligned for the device but not on the host: LDS or private memory through an
                // aperture, which no other thread accesses.
                let old = Self::$load(address);
                Self::$store(address, next(old));
                old
            }
        }
    };
}

impl Cell for Shared {
    #[inline(always)]
    unsafe fn load8(address: u64) -> u8 {
        // SAFETY: the caller's.
        unsafe { AtomicU8::from_ptr(address as *mut u8).load(Relaxed) }
    }
    #[inline(always)]
    unsafe fn store8(address: u64, value: u8) {
        // SAFETY: the caller's.
        unsafe { AtomicU8::from_ptr(address as *mut u8).store(value, Relaxed) }
    }
    shared!(load16, store16, u16, AtomicU16, load8, store8);
    shared!(load32, store32, u32, AtomicU32, load16, store16);
    shared!(load64, store64, u64, AtomicU64, load32, store32);
    shared_update!(update32, load32, store32, u32, AtomicU32);
    shared_update!(update64, load64, store64, u64, AtomicU64);

    #[inline(always)]
    unsafe fn load_quad(address: u64) -> [u32; 4] {
        // SAFETY: the caller's.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            if address.is_multiple_of(16) {
                let vector = (address as *const std::arch::x86_64::__m128i).read_volatile();
                return std::mem::transmute::<std::arch::x86_64::__m128i, [u32; 4]>(vector);
            }
            Self::load::<4>(address)
        }
    }

    #[inline(always)]
    unsafe fn store_quad(address: u64, words: [u32; 4]) {
        // SAFETY: the caller's.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            if address.is_multiple_of(16) {
                let vector = std::mem::transmute::<[u32; 4], std::arch::x86_64::__m128i>(words);
                (address as *mut std::arch::x86_64::__m128i).write_volatile(vector);
                return;
            }
            Self::store(address, words);
        }
    }

    #[inline(always)]
    unsafe fn load_words(address: u64, words: &mut [u32]) {
        // SAFETY: the caller's.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            if address.is_multiple_of(16) && words.len().is_multiple_of(4) {
                use std::arch::x86_64::{__m128i, _mm_storeu_si128};
                for (at, block) in words.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    let vector = ((address + 16 * at as u64) as *const __m128i).read_volatile();
                    _mm_storeu_si128(block.as_mut_ptr().cast(), vector);
                }
                return;
            }
            for (at, word) in words.iter_mut().enumerate() {
                *word = Self::load32(address + 4 * at as u64);
            }
        }
    }

    #[inline(always)]
    unsafe fn store_words(address: u64, words: &[u32]) {
        // SAFETY: the caller's.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            if address.is_multiple_of(16) && words.len().is_multiple_of(4) {
                use std::arch::x86_64::{__m128i, _mm_loadu_si128};
                for (at, block) in words.as_chunks::<4>().0.iter().enumerate() {
                    let vector = _mm_loadu_si128(block.as_ptr().cast());
                    ((address + 16 * at as u64) as *mut __m128i).write_volatile(vector);
                }
                return;
            }
            for (at, word) in words.iter().enumerate() {
                Self::store32(address + 4 * at as u64, *word);
            }
        }
    }
}

macro_rules! owned {
    ($load:ident, $store:ident, $type:ty) => {
        #[inline(always)]
        unsafe fn $load(address: u64) -> $type {
            // SAFETY: the caller's.
            unsafe { (address as *const $type).read_unaligned() }
        }
        #[inline(always)]
        unsafe fn $store(address: u64, value: $type) {
            // SAFETY: the caller's.
            unsafe { (address as *mut $type).write_unaligned(value) }
        }
    };
}

macro_rules! owned_update {
    ($update:ident, $load:ident, $store:ident, $type:ty) => {
        #[inline(always)]
        unsafe fn $update(address: u64, next: impl Fn($type) -> $type) -> $type {
            // SAFETY: the caller's.
            unsafe {
                let old = Self::$load(address);
                Self::$store(address, next(old));
                old
            }
        }
    };
}

impl Cell for Owned {
    owned!(load8, store8, u8);
    owned!(load16, store16, u16);
    owned!(load32, store32, u32);
    owned!(load64, store64, u64);
    owned_update!(update32, load32, store32, u32);
    owned_update!(update64, load64, store64, u64);

    #[inline(always)]
    unsafe fn load_quad(address: u64) -> [u32; 4] {
        // SAFETY: the caller's.
        unsafe { (address as *const [u32; 4]).read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store_quad(address: u64, words: [u32; 4]) {
        // SAFETY: the caller's.
        unsafe { (address as *mut [u32; 4]).write_unaligned(words) }
    }

    #[inline(always)]
    unsafe fn load_words(address: u64, words: &mut [u32]) {
        let source = address as *const u8;
        // SAFETY: the caller's; registers are never inside of LDS or private memory.
        unsafe {
            source.copy_to_nonoverlapping(words.as_mut_ptr().cast(), size_of_val(words));
        }
    }

    #[inline(always)]
    unsafe fn store_words(address: u64, words: &[u32]) {
        let target = address as *mut u8;
        // SAFETY: the caller's; registers are never inside of LDS or private memory.
        unsafe { target.copy_from_nonoverlapping(words.as_ptr().cast(), size_of_val(words)) };
    }
}
