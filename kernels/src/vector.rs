//! A register of f32 lanes, so that each algorithm is written once for all instruction sets.
//!
//! Everything here is `#[inline(always)]` and carries no target feature of its own: it takes
//! on those of the `#[target_feature]` functions in [`crate::arch`] that it is inlined into.

/// Lanes of the widest register.
pub(crate) const LANES_MAX: usize = 16;

/// A register of [`Vector::LANES`] numbers.
///
/// # Safety
/// All methods need the instruction set of the implementor to be present on this machine.
/// Pointers need to be valid for `LANES` numbers, or for `n <= LANES` where `n` is given; no
/// alignment beyond the number's own is needed.
pub(crate) trait Vector: Copy {
    const LANES: usize;
    /// Registers that an algorithm may fill.
    const REGISTERS: usize;

    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    /// The first `n` lanes from memory, zeros in the others.
    unsafe fn load_first(p: *const f32, n: usize) -> Self;
    unsafe fn load_i8(p: *const i8) -> Self;
    unsafe fn load_first_i8(p: *const i8, n: usize) -> Self;
    unsafe fn store(self, p: *mut f32);
    unsafe fn store_first(self, p: *mut f32, n: usize);

    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// `self * factor + term`, fused where the instruction set fuses.
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;
    /// The smaller; `self` where it is NaN.
    unsafe fn at_most(self, bound: Self) -> Self;
    /// The larger; `self` where it is NaN.
    unsafe fn at_least(self, bound: Self) -> Self;
    /// The larger; `self` where `other` is NaN. `self` is never NaN.
    unsafe fn max_number(self, other: Self) -> Self;
    /// To the nearest integer, for magnitudes below 2²².
    unsafe fn round(self) -> Self;
    /// The lower half of each lane's bits as a bf16.
    unsafe fn low_bf16(self) -> Self;
    /// The upper half of each lane's bits as a bf16.
    unsafe fn high_bf16(self) -> Self;
    /// `self * 2^n` for integers `n` in `-252..=254`, rounded once or twice.
    unsafe fn scale(self, n: Self) -> Self;

    /// The highest lane, where no lane is NaN.
    unsafe fn highest(self) -> f32;
    /// The sums of four registers, each by the same tree of additions.
    unsafe fn sum4(v: [Self; 4]) -> [f32; 4];
}

/// A number format whose numbers become f32 one by one.
pub(crate) trait Elem: Copy + Sync {
    /// # Safety
    /// As for [`Vector`].
    unsafe fn load<V: Vector>(p: *const Self) -> V;
    /// # Safety
    /// As for [`Vector`].
    unsafe fn load_first<V: Vector>(p: *const Self, n: usize) -> V;
}

impl Elem for f32 {
    #[inline(always)]
    unsafe fn load<V: Vector>(p: *const f32) -> V {
        // SAFETY: the caller's promise is the one needed.
        unsafe { V::load(p) }
    }

    #[inline(always)]
    unsafe fn load_first<V: Vector>(p: *const f32, n: usize) -> V {
        // SAFETY: the caller's promise is the one needed.
        unsafe { V::load_first(p, n) }
    }
}

impl Elem for i8 {
    #[inline(always)]
    unsafe fn load<V: Vector>(p: *const i8) -> V {
        // SAFETY: the caller's promise is the one needed.
        unsafe { V::load_i8(p) }
    }

    #[inline(always)]
    unsafe fn load_first<V: Vector>(p: *const i8, n: usize) -> V {
        // SAFETY: the caller's promise is the one needed.
        unsafe { V::load_first_i8(p, n) }
    }
}

/// The sum of one register's lanes, by the tree of [`Vector::sum4`].
///
/// # Safety
/// The machine has V's instruction set.
#[inline(always)]
pub(crate) unsafe fn sum<V: Vector>(v: V) -> f32 {
    // SAFETY: the caller's promise is the one needed.
    unsafe { V::sum4([v; 4])[0] }
}

/// The first `n` numbers and `fill` in the other lanes.
///
/// # Safety
/// The machine has V's instruction set and `n <= V::LANES` numbers lie at `p`.
#[inline(always)]
pub(crate) unsafe fn load_first_or<V: Vector>(p: *const f32, n: usize, fill: f32) -> V {
    let mut lanes = [fill; LANES_MAX];
    // SAFETY: the caller vouches for `n` numbers; the array is LANES long at least.
    unsafe {
        std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
        V::load(lanes.as_ptr())
    }
}

/// e to the power of each lane, within 2 units in the last place; 0 and infinity beyond the
/// range of f32, NaN for NaN.
///
/// # Safety
/// The machine has V's instruction set.
#[inline(always)]
pub(crate) unsafe fn exp<V: Vector>(x: V) -> V {
    /// ln 2 in two parts; the first has so few bits that its product with `n` is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // SAFETY: the instruction set is the caller's promise.
    unsafe {
        // Beyond these bounds the result has left f32, in either direction.
        let x = x.at_most(V::splat(89.0)).at_least(V::splat(-105.0));
        let n = x.mul(V::splat(std::f32::consts::LOG2_E)).round();
        let r = n.mul_add(V::splat(-LN_2_HIGH), x);
        let r = n.mul_add(V::splat(-LN_2_LOW), r);
        // The Taylor series: |r| <= ln(2)/2, where its eighth term is below 2^-27.
        let mut sum = V::splat(1.0 / 5040.0);
        for factorial in [720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0] {
            sum = sum.mul_add(r, V::splat(1.0 / factorial));
        }
        sum.scale(n)
    }
}
