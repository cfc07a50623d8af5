//! Whether this process may use tiles, and whether they do what they should.

use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::sync::OnceLock;

use half::bf16;

use crate::tiles::{Shape, TILE_BYTES, TILE_ROWS, TILES, Tiles};

use super::model::Model;
use super::registers::Registers;

/// Bits of leaf 7's EDX: tiles, and their products of bf16 and of bytes.
const FEATURES: u32 = 1 << 24 | 1 << 22 | 1 << 25;

/// The leaf of the features, and of how many leaves there are.
const FEATURES_LEAF: u32 = 7;

/// Components of the extended state that the system saves: configuration and data of tiles.
const STATE: u64 = 1 << TILE_CFG | 1 << TILE_DATA;
const TILE_CFG: u32 = 17;
const TILE_DATA: u32 = 18;

/// Whether products may use tiles. The first call asks the system's permission, which holds for
/// all threads and for good, and has the tiles multiply something.
pub(crate) fn has_tiles() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| detected() && permitted() && multiplies())
}

fn detected() -> bool {
    if !is_x86_feature_detected!("xsave") || !is_x86_feature_detected!("avx512vnni") {
        return false;
    }
    // AVX-512 is only detected where the processor has this leaf.
    let features = __cpuid_count(FEATURES_LEAF, 0).edx;
    // SAFETY: the machine has XSAVE, and the system uses it where AVX-512 is detected.
    let state = unsafe { _xgetbv(0) };
    features & FEATURES == FEATURES && state & STATE == STATE
}

/// The state of tiles is large, so Linux keeps it only for processes that ask.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    let component = libc::c_ulong::from(TILE_DATA);
    // SAFETY: the call reads and writes no memory of ours.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, component) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// Whether the machine's tiles multiply bytes and bf16 as the model of them does: something that
/// only pretends to have them, as some emulators do, counts as having none.
fn multiplies() -> bool {
    let numbers = Numbers::new();
    // SAFETY: the processor and the system have tiles, and this process may use them.
    unsafe { numbers.products::<Registers>() == numbers.products::<Model>() }
}

type Tile = [[u8; TILE_BYTES]; TILE_ROWS];

/// Operands of two products.
struct Numbers {
    /// A of signed bytes and of bf16.
    left: [Tile; 2],
    /// B of unsigned bytes and of bf16.
    right: [Tile; 2],
}

impl Numbers {
    /// The bf16 are small whole numbers, whose sums are exact in whatever order.
    fn new() -> Numbers {
        let byte = |row: usize, i: usize, step: usize| ((row * 31 + i * step + 7) % 251 + 3) as u8;
        let whole = |byte: u8| bf16::from_f32(f32::from(byte % 17) - 8.0).to_le_bytes();
        let bytes =
            |step: usize| std::array::from_fn(|row| std::array::from_fn(|i| byte(row, i, step)));
        let halves = |step: usize| {
            std::array::from_fn(|row| std::array::from_fn(|i| whole(byte(row, i / 2, step))[i % 2]))
        };
        Numbers { left: [bytes(73), halves(29)], right: [bytes(113), halves(41)] }
    }

    /// Sums of bytes and of bf16.
    ///
    /// # Safety
    /// The machine has the tiles.
    unsafe fn products<T: Tiles>(&self) -> [Tile; 2] {
        /// Fewer than there could be, so that shapes count.
        const ROWS: usize = 13;
        const DEPTH: usize = 15;
        let (mut tiles, mut sums) = (T::default(), [[[0; TILE_BYTES]; TILE_ROWS]; 2]);
        let mut shapes = [Shape::default(); TILES];
        shapes[0] = Shape::new(ROWS, TILE_BYTES);
        shapes[1] = Shape::new(ROWS, 4 * DEPTH);
        shapes[7] = Shape::new(DEPTH, TILE_BYTES);
        // SAFETY: the tiles are the caller's promise; all arrays are of whole tiles.
        unsafe {
            tiles.configure(&shapes);
            for (i, sums) in sums.iter_mut().enumerate() {
                tiles.zero::<0>();
                tiles.load::<1>(self.left[i].as_ptr().cast(), TILE_BYTES);
                tiles.load::<7>(self.right[i].as_ptr().cast(), TILE_BYTES);
                match i {
                    0 => tiles.dot_bytes::<0, 1, 7>(),
                    _ => tiles.dot_bf16::<0, 1, 7>(),
                }
                tiles.store::<0>(sums.as_mut_ptr().cast(), TILE_BYTES);
            }
        }
        sums
    }
}
