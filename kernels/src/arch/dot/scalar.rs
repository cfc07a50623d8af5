//! Plain Rust.

use half::f16;

use crate::arch::dot::products;
use crate::arch::scalar::{LANES, Lanes};
use crate::dot::Dot;
#[cfg(test)]
use crate::dot::DotTiles;

pub(crate) struct Scalar;

products!(PRODUCTS, Scalar, 2);

type Bytes = [[u8; 4]; LANES];

fn map(w: Bytes, f: impl Fn(u8) -> u8) -> Bytes {
    w.map(|four| four.map(&f))
}

fn dot(sum: Bytes, w: Bytes, x: Bytes, value: impl Fn(u8) -> i32) -> Bytes {
    std::array::from_fn(|lane| {
        let products = w[lane].iter().zip(x[lane]).map(|(&w, x)| value(w) * i32::from(x as i8));
        (i32::from_ne_bytes(sum[lane]) + products.sum::<i32>()).to_ne_bytes()
    })
}

// The methods need no instruction set; the caller vouches for the memory behind a pointer.
impl Dot for Scalar {
    type Float = Lanes;
    type Int = Bytes;

    const BIASED: bool = false;

    #[inline(always)]
    unsafe fn splat(x: i32) -> Bytes {
        [x.to_ne_bytes(); LANES]
    }

    #[inline(always)]
    unsafe fn load(p: *const u8) -> Bytes {
        // SAFETY: the trait's contract.
        unsafe { p.cast::<Bytes>().read() }
    }

    #[inline(always)]
    unsafe fn splat_four(p: *const u8) -> Bytes {
        // SAFETY: the trait's contract.
        [unsafe { p.cast::<[u8; 4]>().read() }; LANES]
    }

    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> Lanes {
        // SAFETY: the trait's contract.
        let numbers = unsafe { p.cast::<[[u8; 2]; LANES]>().read() };
        Lanes(numbers.map(|bytes| f16::from_le_bytes(bytes).to_f32()))
    }

    #[inline(always)]
    unsafe fn to_float(x: Bytes) -> Lanes {
        Lanes(x.map(|bytes| i32::from_ne_bytes(bytes) as f32))
    }

    #[inline(always)]
    unsafe fn low_bits(w: Bytes) -> Bytes {
        map(w, |byte| byte & 15)
    }

    #[inline(always)]
    unsafe fn high_bits(w: Bytes) -> Bytes {
        map(w, |byte| byte >> 4)
    }

    #[inline(always)]
    unsafe fn dot_q4(sum: Bytes, w: Bytes, x: Bytes) -> Bytes {
        dot(sum, w, x, i32::from)
    }

    #[inline(always)]
    unsafe fn dot_q8(sum: Bytes, w: Bytes, x: Bytes) -> Bytes {
        dot(sum, w, x, |w| i32::from(w) - 128)
    }

    #[inline(always)]
    unsafe fn low_half(w: Bytes) -> Lanes {
        Lanes(w.map(|[a, b, _, _]| f32::from_le_bytes([0, 0, a, b])))
    }

    #[inline(always)]
    unsafe fn high_half(w: Bytes) -> Lanes {
        Lanes(w.map(|[_, _, c, d]| f32::from_le_bytes([0, 0, c, d])))
    }
}

// Only models of tiles go beside it.
#[cfg(test)]
impl DotTiles for Scalar {
    unsafe fn add(a: Bytes, b: Bytes) -> Bytes {
        std::array::from_fn(|lane| {
            let [a, b] = [a[lane], b[lane]].map(i32::from_ne_bytes);
            a.wrapping_add(b).to_ne_bytes()
        })
    }

    unsafe fn store(x: Bytes, p: *mut u8) {
        // SAFETY: the trait's contract.
        unsafe { p.cast::<Bytes>().write(x) }
    }
}
