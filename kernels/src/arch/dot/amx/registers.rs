//! The tiles that the machine has.
//!
//! Their instructions are written out, because the intrinsics are not stable. The compiler gives
//! the tile registers to nobody, so what one instruction leaves in them is there for the next.

use std::arch::asm;

use crate::tiles::{Shape, TILE_ROWS, TILES, Tiles};

/// The tile registers of this thread.
#[derive(Default)]
pub(crate) struct Registers {
    configured: bool,
}

/// The only way to divide the registers that there is so far: eight of 1 KiB.
const PALETTE: u8 = 1;

/// What `ldtilecfg` reads. Sixteen tiles have their place in it.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; TILE_ROWS],
    rows: [u8; TILE_ROWS],
}

impl Config {
    fn new(shapes: &[Shape; TILES]) -> Config {
        let mut config = Config {
            palette: PALETTE,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; TILE_ROWS],
            rows: [0; TILE_ROWS],
        };
        for (i, shape) in shapes.iter().enumerate() {
            config.row_bytes[i] = shape.bytes() as u16;
            config.rows[i] = shape.rows() as u8;
        }
        config
    }
}

impl Drop for Registers {
    /// Tiles in use are state that every switch of threads would save.
    #[inline(always)]
    fn drop(&mut self) {
        if self.configured {
            // SAFETY: they were configured, so the machine has them.
            unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
        }
    }
}

// In each method the caller vouches for AMX and the shapes, and for the memory behind a pointer.
impl Tiles for Registers {
    #[inline(always)]
    unsafe fn configure(&mut self, shapes: &[Shape; TILES]) {
        let config = Config::new(shapes);
        self.configured = true;
        // SAFETY: the trait's contract; the configuration is of 64 bytes.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, preserves_flags, readonly));
        }
    }

    #[inline(always)]
    unsafe fn zero<const T: usize>(&mut self) {
        // SAFETY: the trait's contract.
        unsafe {
            asm!("tilezero tmm{}", const T, options(nostack, preserves_flags, nomem));
        }
    }

    #[inline(always)]
    unsafe fn load<const T: usize>(&mut self, from: *const u8, stride: usize) {
        // SAFETY: the trait's contract.
        unsafe {
            asm!(
                "tileloadd tmm{tile}, [{from} + {stride}]",
                tile = const T,
                from = in(reg) from,
                stride = in(reg) stride,
                options(nostack, preserves_flags, readonly),
            );
        }
    }

    #[inline(always)]
    unsafe fn store<const T: usize>(&mut self, to: *mut u8, stride: usize) {
        // SAFETY: the trait's contract.
        unsafe {
            asm!(
                "tilestored [{to} + {stride}], tmm{tile}",
                tile = const T,
                to = in(reg) to,
                stride = in(reg) stride,
                options(nostack, preserves_flags),
            );
        }
    }

    #[inline(always)]
    unsafe fn dot_bytes<const C: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: the trait's contract.
        unsafe {
            asm!(
                "tdpbsud tmm{c}, tmm{a}, tmm{b}",
                c = const C,
                a = const A,
                b = const B,
                options(nostack, preserves_flags, nomem),
            );
        }
    }

    #[inline(always)]
    unsafe fn dot_bf16<const C: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: the trait's contract.
        unsafe {
            asm!(
                "tdpbf16ps tmm{c}, tmm{a}, tmm{b}",
                c = const C,
                a = const A,
                b = const B,
                options(nostack, preserves_flags, nomem),
            );
        }
    }
}
