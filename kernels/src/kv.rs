//! One layer's KV cache: memory in blocks of positions, and its layout, which only this file and
//! the attention kernel know.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};

use half::bf16;

use crate::memory::{Arena, Pages};
use crate::vector::LANES_MAX;

/// Numbers of a head: twice what any known model has.
pub const HEAD_DIM_MAX: usize = 1 << 10;

/// How K and V are stored. Sums are always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvFormat {
    F32,
    Bf16,
    /// Bytes, with an f32 scale for K and one for V to each position and head.
    Q8,
}

impl KvFormat {
    /// Size in memory of one position's K and V in one layer.
    pub fn bytes(self, kv_heads: usize, head_dim: usize) -> usize {
        let head = match self {
            KvFormat::F32 => size_of::<f32>() * head_dim,
            KvFormat::Bf16 => size_of::<bf16>() * head_dim,
            KvFormat::Q8 => size_of::<i8>() * head_dim + size_of::<f32>(),
        };
        2 * kv_heads * head
    }
}

impl std::fmt::Display for KvFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            KvFormat::F32 => "f32",
            KvFormat::Bf16 => "bf16",
            KvFormat::Q8 => "q8",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    pub blocks: usize,
    /// Positions in a block: a multiple of 16, so that the widest register of positions lies
    /// within one block.
    pub block_tokens: usize,
    pub kv_heads: usize,
    /// At most [`HEAD_DIM_MAX`].
    pub head_dim: usize,
}

impl KvShape {
    /// Number of (block, head, position).
    fn positions(&self) -> usize {
        let blocks = self.blocks.checked_mul(self.kv_heads);
        let positions = blocks.and_then(|blocks| blocks.checked_mul(self.block_tokens));
        positions.expect("a KV cache beyond memory")
    }

    /// The number of a (block, head, position).
    #[inline(always)]
    pub(crate) fn position(&self, block: usize, head: usize, token: usize) -> usize {
        (block * self.kv_heads + head) * self.block_tokens + token
    }

    /// Where K of a position begins; its groups of numbers lie [`KvShape::k_step`] apart.
    #[inline(always)]
    pub(crate) fn k_start<E: KvElem>(&self, block: usize, head: usize, token: usize) -> usize {
        self.position(block, head, 0) * self.k_dim::<E>() + token * E::WIDE
    }

    #[inline(always)]
    pub(crate) fn k_step<E: KvElem>(&self) -> usize {
        self.block_tokens * E::WIDE
    }

    /// Numbers of a head in K: whole groups.
    fn k_dim<E: KvElem>(&self) -> usize {
        self.head_dim.next_multiple_of(E::WIDE)
    }

    /// Where number `i` of a head is, in K and in V.
    fn places<E: KvElem>(&self, block: usize, head: usize, token: usize, i: usize) -> [usize; 2] {
        let group = token / E::WIDE * E::WIDE;
        [
            self.k_start::<E>(block, head, token) + i / E::WIDE * self.k_step::<E>() + i % E::WIDE,
            self.position(block, head, group) * self.head_dim + i * E::WIDE + token % E::WIDE,
        ]
    }
}

/// One layer's K and V.
pub struct KvCache {
    shape: KvShape,
    pub(crate) planes: AnyPlanes,
}

pub(crate) enum AnyPlanes {
    F32(Planes<f32>),
    Bf16(Planes<bf16>),
    Q8(Planes<i8>),
}

/// K and V in one format.
pub(crate) struct Planes<E> {
    /// `[blocks, kv_heads, head_dim / WIDE, block_tokens, WIDE]`, WIDE as in [`KvElem`]: one
    /// register holds neighbouring positions, so that scores need no sum across lanes.
    pub(crate) k: Plane<E>,
    /// `[blocks, kv_heads, block_tokens / WIDE, head_dim, WIDE]`
    pub(crate) v: Plane<E>,
    /// `[blocks, kv_heads, block_tokens]`, empty where the format has no scales.
    pub(crate) k_scales: Plane<f32>,
    pub(crate) v_scales: Plane<f32>,
}

/// Applies an expression to the planes, whatever their format.
macro_rules! with_planes {
    ($planes:expr, $name:ident => $body:expr) => {
        match $planes {
            AnyPlanes::F32($name) => $body,
            AnyPlanes::Bf16($name) => $body,
            AnyPlanes::Q8($name) => $body,
        }
    };
}

impl KvCache {
    /// Allocates all of it, zeros, in memory that it shares with a model's other layers.
    pub fn new(arena: &Arena, format: KvFormat, shape: KvShape) -> KvCache {
        assert!(shape.block_tokens.is_multiple_of(LANES_MAX), "KV: blocks of {shape:?}");
        assert!(shape.block_tokens > 0 && shape.kv_heads > 0 && shape.head_dim > 0, "KV: empty");
        assert!(shape.head_dim <= HEAD_DIM_MAX, "KV: heads of {}", shape.head_dim);
        let planes = match format {
            KvFormat::F32 => AnyPlanes::F32(Planes::new(arena, &shape)),
            KvFormat::Bf16 => AnyPlanes::Bf16(Planes::new(arena, &shape)),
            KvFormat::Q8 => AnyPlanes::Q8(Planes::new(arena, &shape)),
        };
        KvCache { shape, planes }
    }

    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// Size in memory.
    pub fn bytes(&self) -> usize {
        with_planes!(&self.planes, planes => planes.bytes())
    }

    /// Stores one position's K and V, each `[kv_heads, head_dim]`, at `token` inside a block.
    pub fn write(&mut self, block: u32, token: usize, k: &[f32], v: &[f32]) {
        self.check(block, token, k, v);
        let shape = &self.shape;
        with_planes!(&mut self.planes, planes => planes.write(shape, block as usize, token, k, v));
    }

    /// Reads back one position's K and V, each `[kv_heads, head_dim]`, as f32.
    pub fn read(&self, block: u32, token: usize, k: &mut [f32], v: &mut [f32]) {
        self.check(block, token, k, v);
        let shape = &self.shape;
        with_planes!(&self.planes, planes => planes.read(shape, block as usize, token, k, v));
    }

    /// Copies the first `tokens` positions of a block to another.
    pub fn copy(&mut self, from: u32, to: u32, tokens: usize) {
        let (from, to, shape) = (from as usize, to as usize, &self.shape);
        assert!(from < shape.blocks && to < shape.blocks && from != to, "KV: copy outside");
        assert!(tokens <= shape.block_tokens, "KV: copy beyond a block");
        with_planes!(&mut self.planes, planes => planes.copy(shape, from, to, tokens));
    }

    fn check(&self, block: u32, token: usize, k: &[f32], v: &[f32]) {
        let shape = &self.shape;
        let inside = (block as usize) < shape.blocks && token < shape.block_tokens;
        assert!(inside, "KV: position outside");
        let width = shape.kv_heads * shape.head_dim;
        assert!(k.len() == width && v.len() == width, "KV: a position of another width");
    }
}

impl<E: KvElem> Planes<E> {
    fn new(arena: &Arena, shape: &KvShape) -> Planes<E> {
        let positions = shape.positions();
        let len = |dim| positions.checked_mul(dim).expect("a KV cache beyond memory");
        let scales = if E::SCALED { positions } else { 0 };
        Planes {
            k: Plane::zeroed(arena, len(shape.k_dim::<E>())),
            v: Plane::zeroed(arena, len(shape.head_dim)),
            k_scales: Plane::zeroed(arena, scales),
            v_scales: Plane::zeroed(arena, scales),
        }
    }

    fn bytes(&self) -> usize {
        let scales = size_of_val(&self.k_scales[..]) + size_of_val(&self.v_scales[..]);
        size_of_val(&self.k[..]) + size_of_val(&self.v[..]) + scales
    }

    fn write(&mut self, shape: &KvShape, block: usize, token: usize, k: &[f32], v: &[f32]) {
        let dim = shape.head_dim;
        for (head, (k, v)) in k.chunks_exact(dim).zip(v.chunks_exact(dim)).enumerate() {
            let position = shape.position(block, head, token);
            let (k_scale, v_scale) = (E::scale_of(k), E::scale_of(v));
            for (i, (k, v)) in k.iter().zip(v).enumerate() {
                let [k_place, v_place] = shape.places::<E>(block, head, token, i);
                self.k[k_place] = E::store(*k, k_scale.inverse);
                self.v[v_place] = E::store(*v, v_scale.inverse);
            }
            if E::SCALED {
                self.k_scales[position] = k_scale.scale;
                self.v_scales[position] = v_scale.scale;
            }
        }
    }

    fn read(&self, shape: &KvShape, block: usize, token: usize, k: &mut [f32], v: &mut [f32]) {
        let dim = shape.head_dim;
        for (head, (k, v)) in k.chunks_exact_mut(dim).zip(v.chunks_exact_mut(dim)).enumerate() {
            let position = shape.position(block, head, token);
            let scale = |scales: &[f32]| if E::SCALED { scales[position] } else { 1.0 };
            let (k_scale, v_scale) = (scale(&self.k_scales), scale(&self.v_scales));
            for (i, (k, v)) in k.iter_mut().zip(v).enumerate() {
                let [k_place, v_place] = shape.places::<E>(block, head, token, i);
                *k = self.k[k_place].to_f32() * k_scale;
                *v = self.v[v_place].to_f32() * v_scale;
            }
        }
    }

    fn copy(&mut self, shape: &KvShape, from: usize, to: usize, tokens: usize) {
        for head in 0..shape.kv_heads {
            for group in 0..shape.k_dim::<E>() / E::WIDE {
                let start =
                    |block| shape.k_start::<E>(block, head, 0) + group * shape.k_step::<E>();
                self.k.copy_within(first(start(from), tokens * E::WIDE), start(to));
            }
            let (source, target) = (shape.position(from, head, 0), shape.position(to, head, 0));
            let dim = shape.head_dim;
            let whole = tokens / E::WIDE * E::WIDE;
            self.v.copy_within(first(source * dim, whole * dim), target * dim);
            // of a group that is copied in part, number by number
            for (token, i) in (whole..tokens).flat_map(|token| (0..dim).map(move |i| (token, i))) {
                let place = |block| shape.places::<E>(block, head, token, i)[1];
                self.v[place(to)] = self.v[place(from)];
            }
            if E::SCALED {
                self.k_scales.copy_within(first(source, tokens), target);
                self.v_scales.copy_within(first(source, tokens), target);
            }
        }
    }
}

fn first(start: usize, len: usize) -> Range<usize> {
    start..start + len
}

/// Numbers that begin at the start of a cache line.
pub(crate) struct Plane<E> {
    pages: Pages,
    elems: PhantomData<E>,
}

impl<E: KvElem> Plane<E> {
    fn zeroed(arena: &Arena, len: usize) -> Plane<E> {
        let bytes = len.checked_mul(size_of::<E>()).expect("a KV cache beyond memory");
        Plane { pages: arena.zeroed(bytes), elems: PhantomData }
    }
}

impl<E: KvElem> Deref for Plane<E> {
    type Target = [E];

    #[inline(always)]
    fn deref(&self) -> &[E] {
        let len = self.pages.len() / size_of::<E>();
        // SAFETY: pages are aligned for every number, all bytes are numbers of these types, and
        // `len` of them fit.
        unsafe { std::slice::from_raw_parts(self.pages.as_ptr().cast(), len) }
    }
}

impl<E: KvElem> DerefMut for Plane<E> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [E] {
        let len = self.pages.len() / size_of::<E>();
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.pages.as_mut_ptr().cast(), len) }
    }
}

/// What one head's numbers are divided by before they are stored.
pub(crate) struct Scale {
    scale: f32,
    inverse: f32,
}

/// A number format of KV caches. Any bytes are numbers of it.
pub(crate) trait KvElem: Copy + Sync {
    /// Numbers that lie side by side because they are multiplied together: as many as make four
    /// bytes where an instruction does that, else 1. Divides 16.
    const WIDE: usize;
    /// Whether each position and head has a scale.
    const SCALED: bool;

    /// The scale that makes the best of the format; 1 where it has none.
    fn scale_of(_numbers: &[f32]) -> Scale {
        Scale { scale: 1.0, inverse: 1.0 }
    }

    fn store(x: f32, inverse: f32) -> Self;

    fn to_f32(self) -> f32;
}

impl KvElem for f32 {
    const WIDE: usize = 1;
    const SCALED: bool = false;

    fn store(x: f32, _: f32) -> f32 {
        x
    }

    fn to_f32(self) -> f32 {
        self
    }
}

impl KvElem for bf16 {
    const WIDE: usize = 2;
    const SCALED: bool = false;

    fn store(x: f32, _: f32) -> bf16 {
        bf16::from_f32(x)
    }

    fn to_f32(self) -> f32 {
        bf16::to_f32(self)
    }
}

impl KvElem for i8 {
    const WIDE: usize = 1;
    const SCALED: bool = true;

    /// The largest magnitude becomes 127. NaN or infinity anywhere makes all of the head NaN.
    fn scale_of(numbers: &[f32]) -> Scale {
        let largest = numbers.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let finite = numbers.iter().fold(0.0, |sum, x| sum + x * 0.0) == 0.0;
        let scale = if finite { largest / 127.0 } else { f32::NAN };
        Scale { scale, inverse: if scale > 0.0 { 1.0 / scale } else { 0.0 } }
    }

    /// Rounds to the nearest, ties to even.
    fn store(x: f32, inverse: f32) -> i8 {
        /// Adding and subtracting 1.5 · 2²³ rounds: no digits remain behind the point. The
        /// library's rounding is a call on machines of the baseline.
        const ROUNDER: f32 = 12_582_912.0;
        ((x * inverse).clamp(-127.0, 127.0) + ROUNDER - ROUNDER) as i8
    }

    fn to_f32(self) -> f32 {
        f32::from(self)
    }
}
