//! Four lanes in plain Rust: what every machine runs, and what a compiler may well turn into
//! the vectors that its baseline has.

use crate::arch::table::kernels;
use crate::vector::Vector;

pub(crate) const LANES: usize = 4;

#[derive(Clone, Copy)]
pub(crate) struct Lanes(pub(crate) [f32; LANES]);

kernels!(Lanes, 2);

/// Adding and subtracting 1.5 · 2²³ rounds to an integer: no digits remain behind the point.
const ROUNDER: f32 = 12_582_912.0;

impl Lanes {
    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Lanes {
        Lanes(self.0.map(f))
    }

    #[inline(always)]
    fn zip(self, other: Lanes, f: impl Fn(f32, f32) -> f32) -> Lanes {
        Lanes(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

impl Vector for Lanes {
    const LANES: usize = LANES;
    const REGISTERS: usize = 16;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Lanes {
        Lanes([x; LANES])
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Lanes {
        // SAFETY: the caller vouches for LANES numbers at `p`.
        Lanes(unsafe { p.cast::<[f32; LANES]>().read() })
    }

    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Lanes {
        let mut lanes = [0.0; LANES];
        for (i, lane) in lanes.iter_mut().enumerate().take(n) {
            // SAFETY: the caller vouches for `n` numbers at `p`.
            *lane = unsafe { *p.add(i) };
        }
        Lanes(lanes)
    }

    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Lanes {
        // SAFETY: the caller vouches for LANES numbers at `p`.
        Lanes(unsafe { p.cast::<[i8; LANES]>().read() }.map(f32::from))
    }

    #[inline(always)]
    unsafe fn load_first_i8(p: *const i8, n: usize) -> Lanes {
        let mut lanes = [0.0; LANES];
        for (i, lane) in lanes.iter_mut().enumerate().take(n) {
            // SAFETY: the caller vouches for `n` numbers at `p`.
            *lane = f32::from(unsafe { *p.add(i) });
        }
        Lanes(lanes)
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller vouches for room for LANES numbers at `p`.
        unsafe { p.cast::<[f32; LANES]>().write(self.0) }
    }

    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        for (i, lane) in self.0.into_iter().enumerate().take(n) {
            // SAFETY: the caller vouches for room for `n` numbers at `p`.
            unsafe { *p.add(i) = lane };
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Lanes) -> Lanes {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(self, other: Lanes) -> Lanes {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Lanes) -> Lanes {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn div(self, other: Lanes) -> Lanes {
        self.zip(other, |a, b| a / b)
    }

    /// Not fused: without the instruction, `f32::mul_add` is a call into the C library.
    #[inline(always)]
    unsafe fn mul_add(self, factor: Lanes, term: Lanes) -> Lanes {
        Lanes(std::array::from_fn(|i| self.0[i] * factor.0[i] + term.0[i]))
    }

    #[inline(always)]
    unsafe fn at_most(self, bound: Lanes) -> Lanes {
        self.zip(bound, |x, bound| if x > bound { bound } else { x })
    }

    #[inline(always)]
    unsafe fn at_least(self, bound: Lanes) -> Lanes {
        self.zip(bound, |x, bound| if x < bound { bound } else { x })
    }

    #[inline(always)]
    unsafe fn max_number(self, other: Lanes) -> Lanes {
        self.zip(other, |x, other| if other > x { other } else { x })
    }

    #[inline(always)]
    unsafe fn round(self) -> Lanes {
        self.map(|x| (x + ROUNDER) - ROUNDER)
    }

    #[inline(always)]
    unsafe fn low_bf16(self) -> Lanes {
        self.map(|x| f32::from_bits(x.to_bits() << 16))
    }

    #[inline(always)]
    unsafe fn high_bf16(self) -> Lanes {
        self.map(|x| f32::from_bits(x.to_bits() & 0xffff_0000))
    }

    #[inline(always)]
    unsafe fn scale(self, n: Lanes) -> Lanes {
        self.zip(n, |x, n| {
            // In two steps, so that neither power leaves the range of normal numbers.
            let half = (n as i32) >> 1;
            x * power_of_two(half) * power_of_two(n as i32 - half)
        })
    }

    #[inline(always)]
    unsafe fn highest(self) -> f32 {
        let [a, b, c, d] = self.0;
        a.max(b).max(c.max(d))
    }

    #[inline(always)]
    unsafe fn sum4(v: [Lanes; 4]) -> [f32; 4] {
        v.map(|Lanes([a, b, c, d])| (a + c) + (b + d))
    }
}
