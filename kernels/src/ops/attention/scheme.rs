//! How numbers of K and V are multiplied: what attention does not do alike in all formats.

use std::marker::PhantomData;

use half::bf16;

#[cfg(target_arch = "x86_64")]
use crate::dot::DotBf16;
use crate::kv::KvElem;
use crate::vector::{Elem, Vector};

/// A way to multiply. [`KvElem::WIDE`] numbers that follow one another (of a head in K, of
/// positions in V) lie side by side, one such group for each lane, and are multiplied in phases.
///
/// # Safety
/// All methods need the instruction set of the implementor to be present on this machine, and
/// pointers to as many numbers as they say.
pub(crate) trait Scheme {
    type V: Vector;
    type E: KvElem;
    /// Numbers of K or V, as they are multiplied.
    type Lanes: Copy;
    /// What all lanes are multiplied with.
    type Factor: Copy;

    const PHASES: usize;

    /// A phase's part of the groups at `p`.
    unsafe fn load(p: *const Self::E, phase: usize) -> Self::Lanes;
    /// Of the first `n` groups, which alone are read.
    unsafe fn load_first(p: *const Self::E, n: usize, phase: usize) -> Self::Lanes;
    /// What may be multiplied where only the first `seen` numbers of a group are seen.
    unsafe fn of_seen(lanes: Self::Lanes, seen: usize, phase: usize) -> Option<Self::Lanes>;

    /// Turns `len` numbers into factors; there is room up to the next multiple of 16.
    unsafe fn keep(numbers: *mut f32, len: usize);
    /// Where the factors of number `i`, which begins a group, are, in f32 from the first one.
    fn kept(i: usize) -> usize {
        i
    }
    /// The factor of the group `group` of what was kept.
    unsafe fn factor(kept: *const f32, group: usize, phase: usize) -> Self::Factor;

    /// `sum + factor * lanes`
    unsafe fn add(sum: Self::V, factor: Self::Factor, lanes: Self::Lanes) -> Self::V;
}

/// Each number becomes f32 as it is loaded.
pub(crate) struct Plain<V, E>(PhantomData<(V, E)>);

// In each method the caller's promise is the one needed.
impl<V: Vector, E: KvElem + Elem> Scheme for Plain<V, E> {
    type V = V;
    type E = E;
    type Lanes = V;
    type Factor = V;

    const PHASES: usize = 1;

    #[inline(always)]
    unsafe fn load(p: *const E, _: usize) -> V {
        // SAFETY: the trait's contract.
        unsafe { E::load(p) }
    }

    #[inline(always)]
    unsafe fn load_first(p: *const E, n: usize, _: usize) -> V {
        // SAFETY: the trait's contract.
        unsafe { E::load_first(p, n) }
    }

    #[inline(always)]
    unsafe fn of_seen(lanes: V, seen: usize, _: usize) -> Option<V> {
        if seen > 0 { Some(lanes) } else { None }
    }

    #[inline(always)]
    unsafe fn keep(_: *mut f32, _: usize) {}

    #[inline(always)]
    unsafe fn factor(kept: *const f32, group: usize, _: usize) -> V {
        // SAFETY: the trait's contract.
        unsafe { V::splat(*kept.add(group)) }
    }

    #[inline(always)]
    unsafe fn add(sum: V, factor: V, lanes: V) -> V {
        // SAFETY: the trait's contract.
        unsafe { factor.mul_add(lanes, sum) }
    }
}

/// Pairs of bf16 are multiplied as f32, first all the first ones.
pub(crate) struct Halves<V>(PhantomData<V>);

impl<V: Vector> Scheme for Halves<V> {
    type V = V;
    type E = bf16;
    type Lanes = V;
    type Factor = V;

    const PHASES: usize = 2;

    #[inline(always)]
    unsafe fn load(p: *const bf16, phase: usize) -> V {
        // SAFETY: the trait's contract; a pair is as large as an f32.
        unsafe { half(V::load(p.cast()), phase) }
    }

    #[inline(always)]
    unsafe fn load_first(p: *const bf16, n: usize, phase: usize) -> V {
        // SAFETY: the trait's contract; a pair is as large as an f32.
        unsafe { half(V::load_first(p.cast(), n), phase) }
    }

    #[inline(always)]
    unsafe fn of_seen(lanes: V, seen: usize, phase: usize) -> Option<V> {
        if seen > phase { Some(lanes) } else { None }
    }

    #[inline(always)]
    unsafe fn keep(numbers: *mut f32, len: usize) {
        if !len.is_multiple_of(2) {
            // SAFETY: the trait's contract.
            unsafe { *numbers.add(len) = 0.0 };
        }
    }

    #[inline(always)]
    unsafe fn factor(kept: *const f32, group: usize, phase: usize) -> V {
        // SAFETY: the trait's contract.
        unsafe { V::splat(*kept.add(2 * group + phase)) }
    }

    #[inline(always)]
    unsafe fn add(sum: V, factor: V, lanes: V) -> V {
        // SAFETY: the trait's contract.
        unsafe { factor.mul_add(lanes, sum) }
    }
}

/// # Safety
/// The machine has V's instruction set.
#[inline(always)]
unsafe fn half<V: Vector>(pairs: V, phase: usize) -> V {
    // SAFETY: the caller's promise.
    unsafe { if phase == 0 { pairs.low_bf16() } else { pairs.high_bf16() } }
}

/// Pairs of bf16 are multiplied with pairs of bf16: queries and weights are rounded. Twice the
/// multiplications of an instruction, and nothing to widen.
#[cfg(target_arch = "x86_64")]
pub(crate) struct Rounded<D>(PhantomData<D>);

#[cfg(target_arch = "x86_64")]
impl<D: DotBf16> Scheme for Rounded<D> {
    type V = D::Float;
    type E = bf16;
    type Lanes = D::Int;
    type Factor = D::Int;

    const PHASES: usize = 1;

    #[inline(always)]
    unsafe fn load(p: *const bf16, _: usize) -> D::Int {
        // SAFETY: the trait's contract; a pair is as large as an f32.
        unsafe { D::pairs(D::Float::load(p.cast())) }
    }

    #[inline(always)]
    unsafe fn load_first(p: *const bf16, n: usize, _: usize) -> D::Int {
        // SAFETY: the trait's contract; a pair is as large as an f32.
        unsafe { D::pairs(D::Float::load_first(p.cast(), n)) }
    }

    #[inline(always)]
    unsafe fn of_seen(lanes: D::Int, seen: usize, _: usize) -> Option<D::Int> {
        match seen {
            0 => None,
            // SAFETY: the trait's contract.
            1 => Some(unsafe { D::first_of_pairs(lanes) }),
            _ => Some(lanes),
        }
    }

    #[inline(always)]
    unsafe fn keep(numbers: *mut f32, len: usize) {
        let rounded = numbers.cast::<bf16>();
        for i in (0..len).step_by(D::Float::LANES) {
            let n = (len - i).min(D::Float::LANES);
            // SAFETY: the trait's contract; what is written lies before all that is still read.
            unsafe { D::store_rounded(D::Float::load_first(numbers.add(i), n), rounded.add(i)) };
        }
    }

    #[inline(always)]
    fn kept(i: usize) -> usize {
        i / 2
    }

    #[inline(always)]
    unsafe fn factor(kept: *const f32, group: usize, _: usize) -> D::Int {
        // SAFETY: the trait's contract.
        unsafe { D::splat(*kept.cast::<i32>().add(group)) }
    }

    #[inline(always)]
    unsafe fn add(sum: D::Float, factor: D::Int, lanes: D::Int) -> D::Float {
        // SAFETY: the trait's contract.
        unsafe { D::dot_bf16(sum, lanes, factor) }
    }
}
